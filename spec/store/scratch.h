/* What the storage specs share: a scratch folder, files put there by hand, children that run as somebody else, and
 * system calls that fail or kill when a spec says so. */
#ifndef SPEC_STORE_SCRATCH_H
#define SPEC_STORE_SCRATCH_H

#include "../../src/store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Nobody's uid and gid on every system that the specs run on. */
enum { NOBODY = 65534 };

struct scratch {
  char folder[256];
};

/* cmocka's setup and teardown; the state is a struct scratch. */
int scratch_make(void **state);
int scratch_remove(void **state);

/* A test in a folder of its own. */
#define SPEC(name) cmocka_unit_test_setup_teardown(name, scratch_make, scratch_remove)

/* `<folder>/<name>`; the caller frees it. */
char *scratch_path(const struct scratch *scratch, const char *name);

/* The store of `<folder>/token.json`; the caller closes it. */
struct store *open_in(const struct scratch *scratch);

/* True if the store loads just this, or saves it; a failure is written to stderr. */
bool loads(struct store *store, const char *expected);
bool saves(struct store *store, const char *record);

/* Write a file with exactly this mode. */
void put_bytes(const char *path, const void *bytes, size_t length, mode_t mode);
void put(const char *path, const char *text, mode_t mode);

/* True if the file's content is just this. */
bool holds(const char *path, const char *expected);

/* Permission bits of what is there, -1 if nothing is. */
int mode_of(const char *path);
bool is_there(const char *path);

/* The path of what a save has left beside `<folder>/token.json`, under whatever name; the caller frees it. NULL:
 * nothing. */
char *find_leftover(const struct scratch *scratch);
bool has_leftover(const struct scratch *scratch);

/* Shift a file's modification time by whole seconds against now. */
void date(const char *path, long seconds);

/* Descriptors that are open in this process. */
int open_descriptors(void);

/* In a child: unlike cmocka's assertions it must not go on with the parent's other tests. */
#define EXPECT(condition) expect(condition, #condition, __FILE__, __LINE__)
void expect(bool truth, const char *condition, const char *file, int line);

/* Run `body` in a child and return its wait status: 0 when every EXPECT held. */
typedef void child_body(const struct scratch *scratch);
int run_child(child_body *body, const struct scratch *scratch);

/* The same as nobody, to whom the folder is given; as the present user if that is not root. */
int run_as_user(child_body *body, const struct scratch *scratch);

#if defined(__linux__)
/* What can become of a system call instead of an errno. */
enum { PRETENDED = 0, SUDDEN_DEATH = -1 };

/* From now on a system call of this process is not carried out, but ends in errno `cause` or one of the above. Only
 * calls whose argument number `argument` is `value`; every call if `argument` is -1. For children: it
 * cannot be undone. */
void inject(long call, int argument, unsigned value, int cause);

/* Mount an empty file system of `size` bytes on the folder, seen by this process alone, for children that are root.
 * False where that is not permitted. remount_read_only makes it read-only as it stands. */
bool mount_small(const char *folder, const char *size);
bool remount_read_only(const char *folder);
#endif

#endif
