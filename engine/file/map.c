/* A model file as read-only memory.
 *
 * Weights are used where the page cache has them: nothing is copied, several nodes on one box share
 * the pages, and only what a shard touches becomes resident. The mapping is as long as fstat says
 * and every offset of the formats above is checked against that length, so no read goes past the
 * end of the file. What remains is a file that shrinks while it is mapped: the kernel then raises
 * SIGBUS and nothing at this level can prevent it; the model store therefore never rewrites a file
 * in place. Read-ahead is off at first (MADV_RANDOM), because the reader of the metadata jumps over
 * the tensors; a shard asks for its own ranges when it opens. */
#include "engine/file/map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_AHEAD_BYTES = 512 << 10 };

static enum status file_map_check(const char *path, const struct stat *st, struct fault *fault)
{
    if (S_ISDIR(st->st_mode))
        return fault_set(fault, STATUS_INVALID, "%s is a folder, not a model file", path);
    if (!S_ISREG(st->st_mode))
        return fault_set(fault, STATUS_INVALID, "%s is not a regular file", path);
    if (st->st_size <= 0)
        return fault_set(fault, STATUS_TRUNCATED, "%s is empty", path);
    if ((uintmax_t)st->st_size > (uintmax_t)PTRDIFF_MAX)
        return fault_set(fault, STATUS_LIMIT, "%s is larger than memory can address", path);
    return STATUS_OK;
}

enum status file_map_open(const char *path, struct file_map *out, struct fault *fault)
{
    struct stat st;
    enum status status;
    void *data = MAP_FAILED;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    *out = (struct file_map){0};
    if (fd < 0)
        return fault_set(fault, status_from_errno(errno), "%s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0) {
        status = fault_set(fault, STATUS_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    status = file_map_check(path, &st, fault);
    if (status)
        goto out;
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        status = fault_set(fault, STATUS_IO, "%s cannot be mapped: %s", path, strerror(errno));
        goto out;
    }
    (void)madvise(data, (size_t)st.st_size, MADV_RANDOM);
    out->data = data;
    out->size_bytes = (size_t)st.st_size;
    out->fd = fd;
    return STATUS_OK;
out:
    close(fd);
    return status;
}

void file_map_close(struct file_map *map)
{
    if (map->data) {
        munmap((void *)(uintptr_t)map->data, map->size_bytes);
        close(map->fd);
    }
    *map = (struct file_map){0};
}

static void file_map_advise(const struct file_map *map, size_t offset, size_t n_bytes, int advice)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = offset - offset % page;

    if (!map->data || offset > map->size_bytes || n_bytes > map->size_bytes - offset)
        return;
    (void)madvise((void *)(uintptr_t)(map->data + begin), offset + n_bytes - begin, advice);
}

/* Of one request the kernel starts no more than the device's own read-ahead or largest transfer, so
 * a long range is asked for in steps that every device takes whole. */
void file_map_willneed(const struct file_map *map, size_t offset, size_t n_bytes)
{
    file_map_advise(map, offset, n_bytes, MADV_NORMAL);
    for (size_t done = 0, step; done < n_bytes; done += step) {
        step = n_bytes - done < READ_AHEAD_BYTES ? n_bytes - done : READ_AHEAD_BYTES;
        file_map_advise(map, offset + done, step, MADV_WILLNEED);
    }
}

void file_map_forget(const struct file_map *map, size_t offset, size_t n_bytes)
{
    file_map_advise(map, offset, n_bytes, MADV_DONTNEED);
}

void file_map_release(const struct file_map *map, size_t offset, size_t n_bytes)
{
    if (map->data && offset <= map->size_bytes && n_bytes <= map->size_bytes - offset)
        (void)posix_fadvise(map->fd, (off_t)offset, (off_t)n_bytes, POSIX_FADV_DONTNEED);
}
