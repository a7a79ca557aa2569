#ifndef SKEIN_NODE_CONFIG_H
#define SKEIN_NODE_CONFIG_H

/* Options of a command: one table drives parsing (flags, environment, file) and the help text. */
#include "proto/base/base.h"

enum {
    CONFIG_MAX_OPTIONS = 48,
    CONFIG_MAX_ARGUMENTS = 4,
    CONFIG_MAX_LIST = 64,
    CONFIG_MAX_FILE_BYTES = 256 * 1024,
    CONFIG_MAX_PATH = 4096
};

enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_TEXT,   /* const char * */
    OPTION_LIST,   /* struct option_list; repeatable; commas separate in the environment */
    OPTION_COUNT,  /* uint32_t, in [min, max] */
    OPTION_SEED,   /* uint64_t */
    OPTION_SIZE,   /* uint64_t bytes */
    OPTION_NUMBER, /* double, in [min, max] */
    OPTION_CHOICE  /* int: index into choices */
};

struct option_list {
    const char *items[CONFIG_MAX_LIST];
    size_t n;
};

struct option {
    const char *name; /* "memory": --memory, SKEIN_MEMORY, `memory = …` */
    enum option_kind kind;
    size_t offset;              /* of the field in the command's struct */
    const char *value;          /* the word for it in the help, NULL for flags */
    const char *help;           /* one sentence, no full stop */
    const char *fallback;       /* the default, parsed as if the user wrote it; NULL: zero */
    double min, max;            /* COUNT, NUMBER */
    const char *const *choices; /* CHOICE, ended by NULL */
    char letter;                /* -q; 0: none */
    bool flag_only;             /* says what to do once: not from environment or file */
};

/* An entry of a table; further fields follow by name. */
#define OPTION(the_name, the_kind, the_offset, the_value, the_help, ...)                           \
    {                                                                                              \
        .name = the_name, .kind = the_kind, .offset = the_offset, .value = the_value,              \
        .help = the_help, __VA_ARGS__                                                              \
    }

struct command_spec {
    const char *name;      /* "up", "inspect tokens" */
    const char *arguments; /* "MODEL [PROMPT]" */
    const char *summary;   /* one line */
    const char *text;      /* further help, NULL: none */
    const struct option *options;
    size_t n_options;
    unsigned min_arguments, max_arguments;
};

enum config_source { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENVIRONMENT, CONFIG_FLAG };

/* Where the values come from: passed in, so that tests need no environment. */
struct config_world {
    const struct command_spec *const *specs; /* all commands: what a config file may hold */
    size_t n_specs;
    const char *(*environment)(void *owner, const char *name); /* NULL: none */
    void *owner;
    const char *file_path; /* NULL: none; a missing file is no error */
};

struct config {
    bool help; /* asked for: nothing else was checked */
    const char *arguments[CONFIG_MAX_ARGUMENTS];
    size_t n_arguments;
    enum config_source source[CONFIG_MAX_OPTIONS]; /* per option of the spec */
    char *file_text;                               /* owned; values of the file point into it */
    char **copies;                                 /* owned; list items of the environment */
    size_t n_copies;
};

/* Fills the command's struct (`values`, zeroed here, size given) from defaults, file, environment
 * and flags, later ones winning; a list is replaced as a whole by a stronger source. argv holds
 * what follows the command's name and outlives `config`. Errors: INVALID, one sentence that names
 * the flag, the variable or file:line, with the nearest known word where one is near; IO,
 * PERMISSION, LIMIT for the file; NO_MEMORY. Call config_free in every case. */
enum status config_parse(const struct command_spec *spec, const struct config_world *world,
                         int argc, char **argv, void *values, size_t values_size,
                         struct config *out, struct fault *fault) MUST_USE;
void config_free(struct config *config);
/* Whether the option was set by anything but its default. */
bool config_given(const struct command_spec *spec, const struct config *config, const char *name);

/* "SKEIN_NO_DISCOVERY" of "no-discovery"; out holds 64 characters. */
void config_variable(const char *option, char out[static 64]);

/* The nearest of n words to `word` by edit distance, or NULL where none is near. */
const char *config_nearest(const char *word, const char *const *words, size_t n);

/* The help of a command, made from its table, appended to `out`. */
enum status config_help(const struct command_spec *spec, struct buffer *out) MUST_USE;

enum config_folder { CONFIG_FOLDER_CONFIG, CONFIG_FOLDER_STATE, CONFIG_FOLDER_DATA };
/* $XDG_…_HOME/skein, or its place below $HOME. NOT_FOUND where neither variable is set. */
enum status config_folder(const struct config_world *world, enum config_folder which,
                          char out[static CONFIG_MAX_PATH], struct fault *fault) MUST_USE;
/* Makes a folder and its parents, 0700 where new. */
enum status config_folder_make(const char *path, struct fault *fault) MUST_USE;

#endif
