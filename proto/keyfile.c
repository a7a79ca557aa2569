/* Key files: small, secret, made once.
 *
 * A new file is written under a random name beside its place, synced, and then given its name by an
 * operation that refuses to replace (renameat2 with RENAME_NOREPLACE, or link where the file system
 * lacks it). Two processes that start at once therefore agree: one makes the key, the other reads
 * it, and nobody ever sees half of one.
 *
 * A key file that its group or others can read is refused and not repaired: whoever could read it
 * may have done so already, and the user should know. */
#include "proto/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static enum status file_fail(struct fault *fault, const char *what, const char *path, int error)
{
    return fault_set(fault, status_from_errno(error), "cannot %s %s: %s", what, path,
                     strerror(error));
}

static enum status write_all(int fd, const char *data, size_t n_bytes)
{
    while (n_bytes) {
        ssize_t n = write(fd, data, n_bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return STATUS_IO;
        data += n;
        n_bytes -= (size_t)n;
    }
    return STATUS_OK;
}

static enum status check_file(int fd, const char *path, struct fault *fault)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return file_fail(fault, "look at", path, errno);
    if (!S_ISREG(st.st_mode))
        return fault_set(fault, STATUS_FORMAT, "%s is not a plain file", path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return fault_set(fault, STATUS_PERMISSION,
                         "%s holds a secret but others can open it (mode %04o); run: chmod 600 %s",
                         path, st.st_mode & 07777u, path);
    return STATUS_OK;
}

enum status keyfile_read(const char *path, char out[static KEYFILE_BYTES], struct fault *fault)
{
    /* O_NONBLOCK: a named pipe in the file's place must not hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    size_t len = 0;
    ssize_t n = 1;
    enum status status;

    if (fd < 0)
        return file_fail(fault, "open", path, errno);
    status = check_file(fd, path, fault);
    while (status == STATUS_OK && n != 0 && len < KEYFILE_BYTES) {
        n = read(fd, out + len, KEYFILE_BYTES - len);
        if (n > 0)
            len += (size_t)n;
        else if (n < 0 && errno != EINTR)
            status = file_fail(fault, "read", path, errno);
    }
    (void)close(fd);
    if (status == STATUS_OK && (len == KEYFILE_BYTES || memchr(out, 0, len)))
        status = fault_set(fault, STATUS_FORMAT, "%s does not hold a skein key", path);
    if (status != STATUS_OK) {
        sodium_memzero(out, KEYFILE_BYTES);
        return status;
    }
    if (len && out[len - 1] == '\n')
        len--;
    out[len] = 0;
    return STATUS_OK;
}

/* Makes the folders above path that are missing. */
static enum status make_folders(const char *path, struct fault *fault)
{
    char folder[PATH_BYTES];
    size_t n = strlen(path);

    if (n >= sizeof folder - 32) /* room for the temporary name too */
        return fault_set(fault, STATUS_LIMIT, "the path of a key file is too long: %.100s…", path);
    memcpy(folder, path, n + 1);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(folder, 0700) != 0 && errno != EEXIST)
            return file_fail(fault, "make folder", folder, errno);
        *slash = '/';
    }
    return STATUS_OK;
}

/* Moves to path unless that exists: EEXIST. */
static int move_new(const char *from, const char *path)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return errno;
    if (link(from, path) != 0)
        return errno;
    (void)unlink(from);
    return 0;
}

static void sync_folder(const char *path)
{
    char folder[PATH_BYTES];
    const char *slash = strrchr(path, '/');
    int fd;

    (void)snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1,
                   slash ? path : ".");
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    (void)close(fd);
}

enum status keyfile_make(const char *path, const char *text, bool *made, struct fault *fault)
{
    char temporary[PATH_BYTES];
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    int fd, error;
    enum status status = make_folders(path, fault);

    *made = false;
    if (status != STATUS_OK)
        return status;
    randombytes_buf(random, sizeof random);
    bytes_to_hex(random, sizeof random, hex);
    (void)snprintf(temporary, sizeof temporary, "%s.new-%s", path, hex);
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return file_fail(fault, "make", path, errno);
    if (write_all(fd, text, strlen(text)) != STATUS_OK || write_all(fd, "\n", 1) != STATUS_OK ||
        fsync(fd) != 0) {
        status = file_fail(fault, "write", path, errno);
    }
    (void)close(fd);
    error = status == STATUS_OK ? move_new(temporary, path) : 0;
    *made = status == STATUS_OK && error == 0;
    if (!*made)
        (void)unlink(temporary);
    else
        sync_folder(path);
    return error && error != EEXIST ? file_fail(fault, "make", path, error) : status;
}
