/* Options from flags, environment and a file, by one table per command.
 *
 * The same name is a flag (--no-discovery), a variable (SKEIN_NO_DISCOVERY) and a key of the config
 * file (`no-discovery = yes`), and one function turns its text into the value, so that a wrong
 * value gets the same words from all three, led by where it was written. The file may hold the
 * options of every command; a key that no command knows is an error, because a misspelt key that is
 * skipped is a setting silently not made.
 *
 * Happy path: defaults, file, variables, flags, each over the last. What fails: unknown names (the
 * nearest known one is suggested), values out of range, too many arguments. All of it is INVALID
 * with one sentence, before the command has done anything. */
#include "node/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct parse {
    const struct command_spec *spec;
    const struct config_world *world;
    char *values;
    struct config *config;
    struct fault *fault;
};

/* ---------------------------------------------------------------- values */

static bool parse_u64(const char *text, uint64_t *out)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool parse_number(const char *text, double *out)
{
    char *end;

    if (!*text || isspace((unsigned char)text[0]))
        return false;
    errno = 0;
    *out = strtod(text, &end);
    return errno == 0 && *end == '\0' && isfinite(*out);
}

static bool parse_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};

    for (size_t i = 0; i < COUNT_OF(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static enum status choice_set(const struct option *option, int *field, const char *text,
                              const char *where, struct fault *fault)
{
    char names[200] = "";
    size_t at = 0;

    for (int i = 0; option->choices[i]; i++) {
        int n;
        if (strcmp(option->choices[i], text) == 0) {
            *field = i;
            return STATUS_OK;
        }
        n = snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", option->choices[i]);
        if (n > 0 && (size_t)n < sizeof names - at)
            at += (size_t)n;
    }
    return fault_set(fault, STATUS_INVALID, "%s: \"%.80s\" is not one of %s", where, text, names);
}

static enum status count_set(const struct option *option, uint32_t *field, const char *text,
                             const char *where, struct fault *fault)
{
    double max = option->max > 0 ? option->max : (double)UINT32_MAX;
    uint64_t n;

    if (!parse_u64(text, &n) || (double)n < option->min || (double)n > max)
        return fault_set(fault, STATUS_INVALID,
                         "%s: \"%.80s\" is not a whole number from %.0f to %.0f", where, text,
                         option->min, max);
    *field = (uint32_t)n;
    return STATUS_OK;
}

static enum status number_set(const struct option *option, double *field, const char *text,
                              const char *where, struct fault *fault)
{
    if (!parse_number(text, field) || *field < option->min || *field > option->max)
        return fault_set(fault, STATUS_INVALID, "%s: \"%.80s\" is not a number from %g to %g",
                         where, text, option->min, option->max);
    return STATUS_OK;
}

static enum status list_add(struct parse *p, struct option_list *list, const char *text,
                            const char *where)
{
    if (list->n == CONFIG_MAX_LIST)
        return fault_set(p->fault, STATUS_INVALID, "%s: more than %d of them", where,
                         CONFIG_MAX_LIST);
    list->items[list->n++] = text;
    return STATUS_OK;
}

/* One value from one source. `where` leads the sentence of an error: "--memory", "SKEIN_MEMORY",
 * "/etc/x:3: memory". */
static enum status option_set(struct parse *p, size_t i, enum config_source source,
                              const char *text, const char *where)
{
    const struct option *option = &p->spec->options[i];
    void *field = p->values + option->offset;
    struct option_list *list = field;

    if (option->kind != OPTION_FLAG && !*text)
        return fault_set(p->fault, STATUS_INVALID, "%s needs a value: %s", where, option->value);
    if (option->kind == OPTION_LIST && source != p->config->source[i])
        list->n = 0;
    p->config->source[i] = source;
    switch (option->kind) {
    case OPTION_FLAG:
        if (!parse_bool(text, field))
            return fault_set(p->fault, STATUS_INVALID, "%s: \"%.80s\" is not yes or no", where,
                             text);
        return STATUS_OK;
    case OPTION_TEXT:
        *(const char **)field = text;
        return STATUS_OK;
    case OPTION_LIST:
        return list_add(p, list, text, where);
    case OPTION_COUNT:
        return count_set(option, field, text, where, p->fault);
    case OPTION_SEED:
        if (!parse_u64(text, field))
            return fault_set(p->fault, STATUS_INVALID,
                             "%s: \"%.80s\" is not a whole number from 0 to 2^64 - 1", where, text);
        return STATUS_OK;
    case OPTION_SIZE:
        if (!bytes_parse_size(text, field))
            return fault_set(p->fault, STATUS_INVALID,
                             "%s: \"%.80s\" is not a size such as 512M or 8G", where, text);
        return STATUS_OK;
    case OPTION_NUMBER:
        return number_set(option, field, text, where, p->fault);
    case OPTION_CHOICE:
        return choice_set(option, field, text, where, p->fault);
    }
    return fault_set(p->fault, STATUS_INTERNAL, "%s: unknown kind of option", where);
}

static enum status defaults_set(struct parse *p)
{
    for (size_t i = 0; i < p->spec->n_options; i++) {
        const struct option *option = &p->spec->options[i];
        enum status status;

        if (!option->fallback)
            continue;
        status = option_set(p, i, CONFIG_DEFAULT, option->fallback, option->name);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---------------------------------------------------------------- names */

static size_t option_find(const struct command_spec *spec, const char *name, size_t n)
{
    for (size_t i = 0; i < spec->n_options; i++)
        if (strlen(spec->options[i].name) == n && memcmp(spec->options[i].name, name, n) == 0)
            return i;
    return SIZE_MAX;
}

/* Edit distance with neighbouring swaps, of words of up to 31 characters. */
static unsigned distance(const char *a, const char *b)
{
    unsigned rows[3][32];
    size_t n = strlen(a), m = strlen(b);

    if (n > 31 || m > 31)
        return 99;
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[n % 3][m];
}

const char *config_nearest(const char *word, const char *const *words, size_t n)
{
    const char *best = NULL;
    unsigned least = strlen(word) < 4 ? 2 : 3; /* one slip in a short word, two in a long one */

    for (size_t i = 0; i < n; i++) {
        unsigned d = distance(word, words[i]);
        if (d < least) {
            least = d;
            best = words[i];
        }
    }
    return best;
}

static const char *option_nearest(const struct command_spec *spec, const char *name)
{
    const char *names[CONFIG_MAX_OPTIONS + 1];
    size_t n = 0;

    for (; n < spec->n_options && n < CONFIG_MAX_OPTIONS; n++)
        names[n] = spec->options[n].name;
    names[n++] = "help";
    return config_nearest(name, names, n);
}

void config_variable(const char *option, char out[static 64])
{
    int n = snprintf(out, 64, "SKEIN_%s", option);

    for (int i = 0; i < n && i < 63; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* ---------------------------------------------------------------- file */

static enum status file_read(struct parse *p, const char *path)
{
    struct fault *fault = p->fault;
    enum status status = STATUS_OK;
    struct stat st;
    size_t at = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? STATUS_OK
                   : fault_set(fault, status_from_errno(errno), "cannot read %s: %s", path,
                               strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        status = fault_set(fault, STATUS_IO, "cannot read %s: it is not a file", path);
        goto out;
    }
    if (st.st_size > CONFIG_MAX_FILE_BYTES) {
        status = fault_set(fault, STATUS_LIMIT, "%s: a config file has at most %d bytes", path,
                           CONFIG_MAX_FILE_BYTES);
        goto out;
    }
    p->config->file_text = mem_zeroed((size_t)st.st_size + 1, 1);
    if (!p->config->file_text) {
        status = fault_set(fault, STATUS_NO_MEMORY, "no memory for %s", path);
        goto out;
    }
    while (at < (size_t)st.st_size) {
        ssize_t n = read(fd, p->config->file_text + at, (size_t)st.st_size - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        at += (size_t)n;
    }
    if (strlen(p->config->file_text) != at)
        status = fault_set(fault, STATUS_FORMAT, "%s: holds a zero byte; it must be text", path);
out:
    (void)close(fd);
    return status;
}

static char *trim(char *text)
{
    size_t n;

    while (isspace((unsigned char)*text))
        text++;
    n = strlen(text);
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        text[--n] = '\0';
    return text;
}

/* A key of another command is known, too; its value is that command's business. */
static bool key_is_known(const struct config_world *world, const char *key)
{
    for (size_t i = 0; i < world->n_specs; i++) {
        size_t found = option_find(world->specs[i], key, strlen(key));
        if (found != SIZE_MAX && !world->specs[i]->options[found].flag_only)
            return true;
    }
    return false;
}

static const char *key_nearest(const struct config_world *world, const char *key)
{
    const char *names[CONFIG_MAX_OPTIONS * 4];
    size_t n = 0;

    for (size_t i = 0; i < world->n_specs; i++)
        for (size_t j = 0; j < world->specs[i]->n_options; j++)
            if (!world->specs[i]->options[j].flag_only && n < COUNT_OF(names))
                names[n++] = world->specs[i]->options[j].name;
    return config_nearest(key, names, n);
}

static enum status file_line(struct parse *p, char *line, const char *path, unsigned number)
{
    char where[CONFIG_MAX_PATH + 100];
    char *equals, *key, *value;
    const char *near;
    size_t i;

    line = trim(line);
    if (!*line || *line == '#')
        return STATUS_OK;
    equals = strchr(line, '=');
    if (!equals)
        return fault_set(p->fault, STATUS_INVALID, "%s:%u: expected `key = value`", path, number);
    *equals = '\0';
    key = trim(line);
    value = trim(equals + 1);
    (void)snprintf(where, sizeof where, "%s:%u: %.60s", path, number, key);
    i = option_find(p->spec, key, strlen(key));
    if (i != SIZE_MAX && !p->spec->options[i].flag_only)
        return option_set(p, i, CONFIG_FILE, value, where);
    if (key_is_known(p->world, key))
        return STATUS_OK;
    near = key_nearest(p->world, key);
    return fault_set(p->fault, STATUS_INVALID, "%s:%u: unknown key \"%.60s\"%s%s%s", path, number,
                     key, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static enum status file_apply(struct parse *p)
{
    const char *path = p->world->file_path;
    enum status status = path ? file_read(p, path) : STATUS_OK;
    char *line = p->config->file_text;

    for (unsigned number = 1; status == STATUS_OK && line; number++) {
        char *end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        status = file_line(p, line, path, number);
        line = end;
    }
    return status;
}

/* ---------------------------------------------------------------- environment */

/* "a,b" as two items; the pieces are owned by config. */
static enum status list_split(struct parse *p, size_t i, const char *text, const char *where)
{
    struct config *config = p->config;
    char **copies = mem_resize(config->copies, config->n_copies + 1, sizeof *copies);
    enum status status = STATUS_OK;
    char *piece;

    if (!copies)
        return fault_set(p->fault, STATUS_NO_MEMORY, "%s: out of memory", where);
    config->copies = copies;
    piece = mem_text(text);
    if (!piece)
        return fault_set(p->fault, STATUS_NO_MEMORY, "%s: out of memory", where);
    config->copies[config->n_copies++] = piece;
    while (piece && status == STATUS_OK) {
        char *comma = strchr(piece, ',');
        if (comma)
            *comma++ = '\0';
        status = option_set(p, i, CONFIG_ENVIRONMENT, trim(piece), where);
        piece = comma;
    }
    return status;
}

static enum status environment_apply(struct parse *p)
{
    for (size_t i = 0; p->world->environment && i < p->spec->n_options; i++) {
        const struct option *option = &p->spec->options[i];
        enum status status;
        const char *text;
        char name[64];

        if (option->flag_only)
            continue;
        config_variable(option->name, name);
        text = p->world->environment(p->world->owner, name);
        if (!text || !*text) /* an empty variable is an unset one */
            continue;
        status = option->kind == OPTION_LIST ? list_split(p, i, text, name)
                                             : option_set(p, i, CONFIG_ENVIRONMENT, text, name);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---------------------------------------------------------------- flags */

static enum status unknown_flag(struct parse *p, const char *flag, const char *near)
{
    return fault_set(p->fault, STATUS_INVALID, "unknown option %.60s for `skein %s`%s%s%s", flag,
                     p->spec->name, near ? "; did you mean --" : "; see skein ",
                     near ? near : p->spec->name, near ? "?" : " --help");
}

/* argv[*at] is a flag; takes its value from behind the '=' or from the next argument. */
static enum status flag_apply(struct parse *p, int argc, char **argv, int *at)
{
    const char *arg = argv[*at];
    const char *equals = strchr(arg, '=');
    bool is_long = arg[1] == '-';
    size_t i = SIZE_MAX, n = equals && is_long ? (size_t)(equals - arg) : strlen(arg);
    const char *value = equals && is_long ? equals + 1 : NULL;
    char where[80], word[64];

    if (is_long) {
        i = option_find(p->spec, arg + 2, n - 2);
    } else if (n == 2) {
        for (size_t k = 0; k < p->spec->n_options; k++)
            if (p->spec->options[k].letter == arg[1])
                i = k;
    }
    (void)snprintf(word, sizeof word, "%.*s", (int)(n - 2 < 60 ? n - 2 : 60), arg + 2);
    if (i == SIZE_MAX)
        return unknown_flag(p, arg, is_long ? option_nearest(p->spec, word) : NULL);
    (void)snprintf(where, sizeof where, "--%s", p->spec->options[i].name);
    if (value && !*value)
        return fault_set(p->fault, STATUS_INVALID, "%s= needs a value", where);
    if (!value && p->spec->options[i].kind == OPTION_FLAG)
        value = "yes";
    if (!value && (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0))
        return fault_set(p->fault, STATUS_INVALID, "%s needs a value: %s", where,
                         p->spec->options[i].value);
    return option_set(p, i, CONFIG_FLAG, value ? value : argv[++*at], where);
}

static enum status flags_apply(struct parse *p, int argc, char **argv)
{
    const struct command_spec *spec = p->spec;
    struct config *config = p->config;
    bool only_arguments = false;

    for (int i = 0; i < argc; i++) {
        if (!only_arguments && strcmp(argv[i], "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments && argv[i][0] == '-' && argv[i][1] != '\0') {
            enum status status = flag_apply(p, argc, argv, &i);
            if (status != STATUS_OK)
                return status;
        } else if (config->n_arguments == spec->max_arguments) {
            return fault_set(p->fault, STATUS_INVALID, "unexpected \"%.80s\"; usage: skein %s %s",
                             argv[i], spec->name, spec->arguments);
        } else {
            config->arguments[config->n_arguments++] = argv[i];
        }
    }
    if (config->n_arguments < spec->min_arguments)
        return fault_set(p->fault, STATUS_INVALID, "something is missing; usage: skein %s %s",
                         spec->name, spec->arguments);
    return STATUS_OK;
}

static bool help_asked(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

enum status config_parse(const struct command_spec *spec, const struct config_world *world,
                         int argc, char **argv, void *values, size_t values_size,
                         struct config *out, struct fault *fault)
{
    struct parse p = {spec, world, values, out, fault};
    enum status status;

    memset(values, 0, values_size);
    memset(out, 0, sizeof *out);
    out->help = help_asked(argc, argv);
    if (out->help)
        return STATUS_OK;
    status = defaults_set(&p);
    if (status == STATUS_OK)
        status = file_apply(&p);
    if (status == STATUS_OK)
        status = environment_apply(&p);
    if (status == STATUS_OK)
        status = flags_apply(&p, argc, argv);
    return status;
}

void config_free(struct config *config)
{
    for (size_t i = 0; i < config->n_copies; i++)
        mem_free(config->copies[i]);
    mem_free(config->copies);
    mem_free(config->file_text);
    memset(config, 0, sizeof *config);
}

bool config_given(const struct command_spec *spec, const struct config *config, const char *name)
{
    size_t i = option_find(spec, name, strlen(name));

    return i != SIZE_MAX && config->source[i] != CONFIG_DEFAULT;
}

/* ---------------------------------------------------------------- folders */

enum status config_folder(const struct config_world *world, enum config_folder which,
                          char out[static CONFIG_MAX_PATH], struct fault *fault)
{
    static const char *const variables[] = {"XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"};
    static const char *const places[] = {".config", ".local/state", ".local/share"};
    const char *base =
        world->environment ? world->environment(world->owner, variables[which]) : NULL;
    const char *home = world->environment ? world->environment(world->owner, "HOME") : NULL;
    int n;

    if (base && base[0] == '/')
        n = snprintf(out, CONFIG_MAX_PATH, "%s/skein", base);
    else if (home && *home)
        n = snprintf(out, CONFIG_MAX_PATH, "%s/%s/skein", home, places[which]);
    else
        return fault_set(fault, STATUS_NOT_FOUND, "neither %s nor HOME is set", variables[which]);
    if (n < 0 || n >= CONFIG_MAX_PATH)
        return fault_set(fault, STATUS_LIMIT, "%s is longer than a path may be", variables[which]);
    return STATUS_OK;
}

enum status config_folder_make(const char *path, struct fault *fault)
{
    char part[CONFIG_MAX_PATH];
    struct stat st;
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof part)
        return fault_set(fault, STATUS_INVALID, "\"%.80s\" is not a folder's path", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST && stat(part, &st) != 0)
            return fault_set(fault, status_from_errno(errno), "cannot make the folder %.300s: %s",
                             part, strerror(errno));
    }
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return fault_set(fault, STATUS_IO, "%.300s is not a folder", path);
    return STATUS_OK;
}
