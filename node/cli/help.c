/* The help of a command, written from the table that also drives parsing, so that the two cannot
 * differ. Lines are wrapped at 80 columns, the second column starts at 28. */
#include "node/config.h"

#include <stdio.h>
#include <string.h>

enum { HELP_COLUMN = 28, HELP_WIDTH = 80 };

/* Appends `text` wrapped, continuing a line that already has `column` characters. */
static enum status put_wrapped(struct buffer *out, const char *text, size_t column, size_t indent)
{
    enum status status = STATUS_OK;
    bool first = true;

    while (*text && status == STATUS_OK) {
        size_t n = strcspn(text, " ");
        if (!first && column + 1 + n > HELP_WIDTH) {
            status = buffer_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (!first) {
            status = buffer_put_u8(out, ' ');
            column++;
        }
        if (status == STATUS_OK)
            status = buffer_put(out, text, n);
        column += n;
        first = false;
        text += n;
        text += strspn(text, " ");
    }
    return status == STATUS_OK ? buffer_put_u8(out, '\n') : status;
}

static void option_words(const struct option *option, char *out, size_t size)
{
    char letter[8] = "";
    size_t at;
    int n;

    if (option->letter)
        (void)snprintf(letter, sizeof letter, "-%c, ", option->letter);
    n = snprintf(out, size, "  %s--%s", letter, option->name);
    at = n > 0 && (size_t)n < size ? (size_t)n : size - 1;
    if (option->kind != OPTION_CHOICE) {
        if (option->value)
            (void)snprintf(out + at, size - at, " %s", option->value);
        return;
    }
    for (int i = 0; option->choices[i]; i++) {
        n = snprintf(out + at, size - at, "%s%s", i ? "|" : " ", option->choices[i]);
        if (n > 0 && (size_t)n < size - at)
            at += (size_t)n;
    }
}

static enum status put_option(struct buffer *out, const struct option *option)
{
    char words[120], text[400];
    enum status status;
    size_t n;

    option_words(option, words, sizeof words);
    n = strlen(words);
    (void)snprintf(text, sizeof text, "%s%s%s%s%s", option->help,
                   option->kind == OPTION_LIST ? " (repeatable)" : "",
                   option->fallback ? " (default " : "", option->fallback ? option->fallback : "",
                   option->fallback ? ")" : "");
    if (n + 2 > HELP_COLUMN)
        status = buffer_printf(out, "%s\n%*s", words, HELP_COLUMN, "");
    else
        status = buffer_printf(out, "%-*s", HELP_COLUMN, words);
    return status == STATUS_OK ? put_wrapped(out, text, HELP_COLUMN, HELP_COLUMN) : status;
}

/* Paragraphs are separated by newlines; a line that starts with a space is kept as it is. */
static enum status put_text(struct buffer *out, const char *text)
{
    enum status status = buffer_put_u8(out, '\n');

    while (*text && status == STATUS_OK) {
        size_t n = strcspn(text, "\n");
        char line[600];
        (void)snprintf(line, sizeof line, "%.*s", (int)n, text);
        status = *text == ' ' ? buffer_printf(out, "%s\n", line) : put_wrapped(out, line, 0, 0);
        text += n + (text[n] == '\n');
    }
    return status;
}

enum status config_help(const struct command_spec *spec, struct buffer *out)
{
    enum status status = buffer_printf(out, "usage: skein %s%s%s%s\n\n", spec->name,
                                       spec->n_options ? " [OPTIONS]" : "",
                                       *spec->arguments ? " " : "", spec->arguments);
    bool any = false;

    if (status == STATUS_OK)
        status = put_wrapped(out, spec->summary, 0, 0);
    if (status == STATUS_OK && spec->text)
        status = put_text(out, spec->text);
    if (status == STATUS_OK)
        status = buffer_put_text(out, "\nOptions:\n");
    for (size_t i = 0; i < spec->n_options && status == STATUS_OK; i++) {
        status = put_option(out, &spec->options[i]);
        any = any || !spec->options[i].flag_only;
    }
    if (status == STATUS_OK)
        status = buffer_printf(out, "%-*s%s\n", HELP_COLUMN, "  -h, --help", "Show this help");
    if (status == STATUS_OK && any)
        status = put_text(
            out, "An option --some-name can also come from the variable SKEIN_SOME_NAME or "
                 "from a line `some-name = value` in $XDG_CONFIG_HOME/skein/config; the "
                 "flag wins over the variable, the variable over the file.");
    return status;
}
