/* What the commands share.
 *
 * An error is one line: whatever a path or a peer's sentence holds, line breaks and control bytes
 * are replaced before it is printed, so that scripts can rely on it and a terminal stays as it was.
 */
#include "node/cli/cli.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CLI_MAX_JSON_BYTES = 64 * 1024 * 1024 };

static const char *from_environment(void *owner, const char *name)
{
    (void)owner;
    return getenv(name);
}

void cli_world(struct config_world *out, char path[static CONFIG_MAX_PATH])
{
    size_t n;

    memset(out, 0, sizeof *out);
    out->specs = cli_specs;
    out->n_specs = cli_n_specs;
    out->environment = from_environment;
    if (config_folder(out, CONFIG_FOLDER_CONFIG, path, NULL) != STATUS_OK)
        return;
    n = strlen(path);
    if (n + sizeof "/config" > CONFIG_MAX_PATH)
        return;
    memcpy(path + n, "/config", sizeof "/config");
    out->file_path = path;
}

bool cli_start(const struct command_spec *spec, int argc, char **argv, void *values,
               size_t values_size, struct config *config, int *exit_code)
{
    char path[CONFIG_MAX_PATH];
    struct config_world world;
    struct buffer help = {0};
    struct fault fault;
    enum status status;

    cli_world(&world, path);
    status = config_parse(spec, &world, argc - 1, argv + 1, values, values_size, config, &fault);
    if (status != STATUS_OK) {
        *exit_code = cli_fail(&fault);
        return false;
    }
    if (!config->help)
        return true;
    status = config_help(spec, &help);
    if (status == STATUS_OK)
        (void)fwrite(help.data, 1, help.len, stdout);
    buffer_free(&help);
    *exit_code =
        status == STATUS_OK ? cli_finish(0) : cli_fail_with(status, "no memory for the help");
    return false;
}

int cli_fail(const struct fault *fault)
{
    (void)fflush(stdout);
    (void)fputs("skein: ", stderr);
    cli_put_safe(stderr, *fault->text ? fault->text : status_words(fault->status),
                 strlen(*fault->text ? fault->text : status_words(fault->status)));
    (void)fputc('\n', stderr);
    return status_exit_code(fault->status);
}

int cli_fail_with(enum status status, const char *format, ...)
{
    struct fault fault = {.status = status};
    va_list args;

    va_start(args, format);
    (void)vsnprintf(fault.text, sizeof fault.text, format, args);
    va_end(args);
    return cli_fail(&fault);
}

int cli_finish(int exit_code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return exit_code;
    if (exit_code != 0)
        return exit_code;
    return cli_fail_with(STATUS_IO, "cannot write to standard output: %s", strerror(errno));
}

void cli_put_safe(FILE *out, const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        /* 0xc2 0x80..0x9f are the C1 controls, which some terminals obey */
        bool c1 = c == 0xc2 && i + 1 < n_bytes && ((unsigned char)text[i + 1] & 0xe0) == 0x80;
        if (c1)
            i++;
        (void)fputc(c < 0x20 || c == 0x7f || c1 ? '?' : (int)c, out);
    }
}

/* ---------------------------------------------------------------- files */

static enum status read_all(int fd, const char *name, struct buffer *out, struct fault *fault)
{
    uint8_t chunk[16 * 1024];

    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        enum status status;

        if (n == 0)
            return buffer_reserve(out, 0) == STATUS_OK
                       ? STATUS_OK
                       : fault_set(fault, STATUS_NO_MEMORY, "no memory for %s", name);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fault_set(fault, status_from_errno(errno), "cannot read %s: %s", name,
                             strerror(errno));
        status = buffer_put(out, chunk, (size_t)n);
        if (status == STATUS_LIMIT)
            return fault_set(fault, status, "%s has more than %zu bytes", name, out->max_bytes);
        if (status != STATUS_OK)
            return fault_set(fault, status, "no memory for %s", name);
    }
}

enum status cli_read(const char *path, size_t max_bytes, struct buffer *out, struct fault *fault)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    enum status status;

    if (fd < 0)
        return fault_set(fault, status_from_errno(errno), "cannot read %s: %s", path,
                         strerror(errno));
    out->max_bytes = max_bytes;
    status = read_all(fd, path ? path : "standard input", out, fault);
    if (path)
        (void)close(fd);
    return status;
}

/* Straight into the caller's memory, so that no copy of the secret stays behind. */
enum status cli_read_secret(const char *path, char *out, size_t size, struct fault *fault)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum status status = STATUS_OK;
    struct stat st;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) != 0) {
        status = fault_set(fault, status_from_errno(errno), "cannot read the key file %s: %s", path,
                           strerror(errno));
        goto out;
    }
    if (st.st_mode & 077) {
        status = fault_set(fault, STATUS_PERMISSION,
                           "others can read the key file %s: run chmod 600 %s", path, path);
        goto out;
    }
    n = read(fd, out, size - 1);
    while (n > 0 && strchr(" \t\r\n", out[n - 1]))
        n--;
    if (n < 16 || (size_t)n == size - 1) {
        status =
            fault_set(fault, STATUS_FORMAT,
                      "the key in %s must be one word of 16 to %zu characters", path, size - 2);
        goto out;
    }
    out[n] = '\0';
    for (ssize_t i = 0; i < n && status == STATUS_OK; i++)
        if (out[i] <= ' ' || out[i] > '~')
            status = fault_set(fault, STATUS_FORMAT,
                               "the key in %s holds more than one word of plain ASCII", path);
out:
    if (fd >= 0)
        (void)close(fd);
    return status;
}

enum status cli_read_json(const char *path, json_t **out, struct fault *fault)
{
    struct buffer text = {0};
    enum status status = cli_read(path, CLI_MAX_JSON_BYTES, &text, fault);
    json_error_t error;

    if (status == STATUS_OK) {
        *out = json_loadb((const char *)text.data, text.len,
                          JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
        if (!*out)
            status =
                fault_set(fault, STATUS_FORMAT, "%s is not valid JSON, line %d, column %d: %s",
                          path ? path : "standard input", error.line, error.column, error.text);
    }
    buffer_free(&text);
    return status;
}

static int put_chunk(const char *data, size_t n, void *owner)
{
    return fwrite(data, 1, n, owner) == n ? 0 : -1;
}

int cli_print_json(json_t *value)
{
    int rc = value ? json_dump_callback(value, put_chunk, stdout,
                                        JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY |
                                            JSON_REAL_PRECISION(12))
                   : -1;

    if (!value)
        return cli_fail_with(STATUS_NO_MEMORY, "out of memory");
    json_decref(value);
    if (rc == 0)
        (void)fputc('\n', stdout);
    return cli_finish(0);
}

/* ---------------------------------------------------------------- addresses */

enum status cli_address_parse(const char *text, struct cli_address *out, struct fault *fault)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t n;
    char *end;
    long port;

    if (!colon || !colon[1])
        goto bad;
    n = (size_t)(colon - text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        host++;
        n -= 2;
    } else if (memchr(text, ':', n)) {
        goto bad;
    }
    errno = 0;
    port = strtol(colon + 1, &end, 10);
    if (errno || *end || port < 0 || port > 65535 || n == 0 || n >= sizeof out->host ||
        colon[1] < '0' || colon[1] > '9')
        goto bad;
    memcpy(out->host, host, n);
    out->host[n] = '\0';
    out->port = (uint16_t)port;
    return STATUS_OK;
bad:
    return fault_set(fault, STATUS_INVALID,
                     "\"%.100s\" is not ADDRESS:PORT such as 127.0.0.1:8470 or [::1]:8470", text);
}

bool cli_address_is_loopback(const char *host)
{
    struct in6_addr six;
    struct in_addr four;

    if (inet_pton(AF_INET, host, &four) == 1)
        return (ntohl(four.s_addr) >> 24) == 127;
    if (inet_pton(AF_INET6, host, &six) == 1)
        return IN6_IS_ADDR_LOOPBACK(&six);
    return strcmp(host, "localhost") == 0;
}
