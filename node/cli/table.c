/* Tables with aligned columns for people: cells are kept until the end, then widths are known. */
#include "node/cli/cli.h"

#include <stdarg.h>
#include <string.h>

void cli_table_add(struct cli_table *table, const char *format, ...)
{
    char **cells = mem_resize(table->cells, table->n_cells + 1, sizeof *cells);
    char text[512];
    va_list args;

    if (!cells) {
        table->failed = true;
        return;
    }
    table->cells = cells;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    table->cells[table->n_cells] = mem_text(text);
    if (table->cells[table->n_cells])
        table->n_cells++;
    else
        table->failed = true;
}

/* Columns that UTF-8 text takes, one per character; good enough for names. */
static size_t text_width(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void print_row(const struct cli_table *table, size_t row, const size_t *widths, FILE *out)
{
    for (size_t c = 0; c < table->n_columns; c++) {
        const char *cell = table->cells[row * table->n_columns + c];
        size_t pad = widths[c] - text_width(cell);

        if (c > 0)
            (void)fputs("  ", out);
        if (table->right[c])
            (void)fprintf(out, "%*s", (int)pad, "");
        cli_put_safe(out, cell, strlen(cell));
        if (!table->right[c] && c + 1 < table->n_columns)
            (void)fprintf(out, "%*s", (int)pad, "");
    }
    (void)fputc('\n', out);
}

void cli_table_print(struct cli_table *table, FILE *out)
{
    size_t widths[CLI_MAX_COLUMNS] = {0};
    size_t n_rows = table->n_columns ? table->n_cells / table->n_columns : 0;

    for (size_t i = 0; i < n_rows * table->n_columns; i++) {
        size_t n = text_width(table->cells[i]);
        if (n > widths[i % table->n_columns])
            widths[i % table->n_columns] = n;
    }
    for (size_t row = 0; row < n_rows && !table->failed; row++)
        print_row(table, row, widths, out);
    if (table->failed)
        (void)fputs("skein: out of memory\n", stderr);
    for (size_t i = 0; i < table->n_cells; i++)
        mem_free(table->cells[i]);
    mem_free(table->cells);
    memset(table, 0, sizeof *table);
}
