/* Faults of the operating system for one process group, loaded with LD_PRELOAD; each is asked for by the environment.

   FAULT_FOLDER         only files in this folder count
   FAULT_COUNTER        file of 8 bytes: the number of changes (writes, renames, deletions) made in the folder so far
   FAULT_KILL_AT        kill the process group at this change; a write is torn in its middle
   FAULT_DISK_BYTES     the folder takes so many bytes, then "no space left on device"
   FAULT_NO_LOCKS       flock fails with this number, as on some network file systems
   FAULT_CLOCK_BACK     the clock goes back by so many seconds at every second call */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *folder;
static size_t folder_length;
static long kill_at = -1, disk_bytes = -1;
static int no_locks, clock_back;
static struct shared { atomic_long changes, bytes; } *shared;

__attribute__((constructor)) static void start(void) {
    const char *value;
    if ((folder = getenv("FAULT_FOLDER"))) folder_length = strlen(folder);
    if ((value = getenv("FAULT_KILL_AT"))) kill_at = atol(value);
    if ((value = getenv("FAULT_DISK_BYTES"))) disk_bytes = atol(value);
    if ((value = getenv("FAULT_NO_LOCKS"))) no_locks = atoi(value);
    if ((value = getenv("FAULT_CLOCK_BACK"))) clock_back = atoi(value);
    if ((value = getenv("FAULT_COUNTER"))) {
        int file = open(value, O_RDWR);
        void *memory = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (memory != MAP_FAILED) shared = memory;
    }
}

static int inside(const char *path) {
    char resolved[PATH_MAX];
    if (!folder || !path) return 0;
    if (path[0] != '/') {
        if (!getcwd(resolved, sizeof resolved)) return 0;
        path = resolved;
    }
    return !strncmp(path, folder, folder_length);
}

static int file_inside(int file) {
    char link[64], path[PATH_MAX];
    struct stat status;
    if (!folder || fstat(file, &status) || !S_ISREG(status.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

/* counts a change; true if the process group must die at it */
static int change(void) { return shared && atomic_fetch_add(&shared->changes, 1) + 1 == kill_at; }
static void die(void) { kill(0, SIGKILL); for (;;) pause(); }
static int full(size_t count) {
    return disk_bytes >= 0 && shared && atomic_fetch_add(&shared->bytes, (long)count) + (long)count > disk_bytes;
}

ssize_t write(int file, const void *data, size_t count) {
    if (file_inside(file)) {
        if (full(count)) { errno = ENOSPC; return -1; }
        if (change()) { NEXT(write)(file, data, count / 2); die(); }
    }
    return NEXT(write)(file, data, count);
}

ssize_t pwrite64(int file, const void *data, size_t count, off64_t offset) {
    if (file_inside(file)) {
        if (full(count)) { errno = ENOSPC; return -1; }
        if (change()) { NEXT(pwrite64)(file, data, count / 2, offset); die(); }
    }
    return NEXT(pwrite64)(file, data, count, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    if (file_inside(file)) {
        size_t bytes = 0;
        for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
        if (full(bytes)) { errno = ENOSPC; return -1; }
        if (change()) { NEXT(writev)(file, parts, count / 2); die(); }
    }
    return NEXT(writev)(file, parts, count);
}

int rename(const char *from, const char *to) {
    if (inside(to) && change()) die();
    return NEXT(rename)(from, to);
}

int unlink(const char *path) {
    if (inside(path) && change()) die();
    return NEXT(unlink)(path);
}

int mkdir(const char *path, mode_t mode) {
    if (inside(path) && change()) die();
    return NEXT(mkdir)(path, mode);
}

int rmdir(const char *path) {
    if (inside(path) && change()) die();
    return NEXT(rmdir)(path);
}

int fsync(int file) {
    if (file_inside(file) && change()) die();
    return NEXT(fsync)(file);
}

int flock(int file, int operation) {
    if (no_locks) { errno = no_locks; return -1; }
    return NEXT(flock)(file, operation);
}

int clock_gettime(clockid_t clock, struct timespec *result) {
    static atomic_int calls;
    int status = NEXT(clock_gettime)(clock, result);
    if (clock_back && clock == CLOCK_REALTIME && atomic_fetch_add(&calls, 1) % 2) result->tv_sec -= clock_back;
    return status;
}
