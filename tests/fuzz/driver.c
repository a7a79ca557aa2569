/* Runs a fuzz target where libFuzzer is not at hand.
 *
 *   fuzz_X [-max_total_time=SECONDS] [-seed=N] FILE|FOLDER…
 *
 * Every file of the folders once, then random mutations of them until the time is over. No coverage
 * guides it, so it finds less than libFuzzer; it keeps the targets and their corpus alive in every
 * build, sanitizers and debuggers included. The input at hand lies in a file mapped into memory,
 * fuzz_X.last, so it survives any crash and is replayed by naming it. Other arguments of libFuzzer
 * are ignored. */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_LIMIT = 1 << 16, CORPUS_LIMIT = 4096 };

struct input {
    uint8_t *data;
    size_t size;
};

static struct input corpus[CORPUS_LIMIT];
static size_t n_corpus;
static uint64_t random_state = 0x243f6a8885a308d3u;

static uint32_t random_below(size_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) % (n ? n : 1));
}

static void corpus_add_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_LIMIT);

    if (f && data && n_corpus < CORPUS_LIMIT) {
        size_t size = fread(data, 1, INPUT_LIMIT, f);

        corpus[n_corpus++] = (struct input){data, size};
        data = NULL;
    }
    free(data);
    if (f)
        (void)fclose(f);
}

static void corpus_add(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;

    if (!folder) {
        corpus_add_file(path);
        return;
    }
    while ((entry = readdir(folder))) {
        char full[4096];

        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(full, sizeof full, "%s/%s", path, entry->d_name);
        corpus_add_file(full);
    }
    (void)closedir(folder);
}

static size_t mutate_once(uint8_t *data, size_t size)
{
    static const uint32_t values[] = {0,      1,      0x7f,       0x80,       0xff,      0x100,
                                      0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};
    size_t at = random_below(size), n = 1 + random_below(size - at < 32 ? size - at : 32);
    uint32_t value = values[random_below(sizeof values / sizeof *values)];

    switch (size == 0 ? 2 : random_below(7)) {
    case 0:
        data[at] ^= (uint8_t)(1u << random_below(8));
        return size;
    case 1:
        data[at] = (uint8_t)random_below(256);
        return size;
    case 2: /* insert */
        if (size + n > INPUT_LIMIT)
            return size;
        memmove(data + at + n, data + at, size - at);
        for (size_t i = 0; i < n; i++)
            data[at + i] = (uint8_t)random_below(256);
        return size + n;
    case 3: /* remove */
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 4:
        return at;
    case 5: /* an interesting number over some bytes */
        n = (size_t)1 << random_below(3);
        memcpy(data + at, &value, at + n <= size ? n : size - at);
        return size;
    default: { /* a piece of another input */
        const struct input *other = &corpus[random_below(n_corpus)];
        size_t from = random_below(other->size), more = other->size - from;

        more = more < size - at ? more : size - at;
        if (more)
            memcpy(data + at, other->data + from, more);
        return size;
    }
    }
}

static uint8_t *map_last(const char *program, int *out_fd)
{
    const char *slash = strrchr(program, '/');
    char path[512];
    void *map;

    (void)snprintf(path, sizeof path, "%s.last", slash ? slash + 1 : program);
    *out_fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (*out_fd < 0 || ftruncate(*out_fd, INPUT_LIMIT) != 0)
        return NULL;
    map = mmap(NULL, INPUT_LIMIT, PROT_READ | PROT_WRITE, MAP_SHARED, *out_fd, 0);
    return map == MAP_FAILED ? NULL : map;
}

/* From memory of exactly its size, so that a sanitizer sees one byte too many. */
static void run_one(int fd, uint8_t *last, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);

    if (!exact || ftruncate(fd, (off_t)size) != 0)
        exit(70);
    memcpy(exact, last, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    if (ftruncate(fd, INPUT_LIMIT) != 0)
        exit(70);
}

int main(int argc, char **argv)
{
    long seconds = 2;
    unsigned long n_runs = 0;
    time_t end;
    int fd;
    uint8_t *last = map_last(argv[0], &fd);

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-max_total_time=", 16) == 0)
            seconds = strtol(argv[i] + 16, NULL, 10);
        else if (strncmp(argv[i], "-seed=", 6) == 0)
            random_state ^= strtoull(argv[i] + 6, NULL, 10) * 0x9e3779b97f4a7c15u;
        else if (argv[i][0] != '-')
            corpus_add(argv[i]);
    }
    if (!last) {
        perror("fuzz driver: the file for the last input");
        return 74;
    }
    for (size_t i = 0; i < n_corpus; i++) {
        memcpy(last, corpus[i].data, corpus[i].size);
        run_one(fd, last, corpus[i].size);
    }
    if (n_corpus == 0)
        corpus[n_corpus++] = (struct input){calloc(1, 1), 0};
    for (end = time(NULL) + seconds; time(NULL) < end; n_runs++) {
        const struct input *from = &corpus[random_below(n_corpus)];
        size_t size = from->size;

        if (size)
            memcpy(last, from->data, size);
        for (uint32_t i = 0, n = 1 + random_below(8); i < n; i++)
            size = mutate_once(last, size);
        run_one(fd, last, size);
    }
    (void)printf("%zu inputs of the corpus, %lu mutations\n", n_corpus, n_runs);
    return 0;
}
