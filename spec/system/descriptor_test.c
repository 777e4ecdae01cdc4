/* Descriptors that the program takes from us. */
#include "../../src/system/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static bool broken; /* the disk, or the share */

int __real_fstat(int fd, struct stat *found);
int __wrap_fstat(int fd, struct stat *found);

int __wrap_fstat(int fd, struct stat *found)
{
  if (!broken || fcntl(fd, F_GETFD) < 0)
    return __real_fstat(fd, found);
  errno = EIO;
  return -1;
}

/* It would keep its lock for as long as the process runs. */
static void one_that_cannot_be_examined_is_closed(void **state)
{
  (void)state;
  struct descriptor held;
  assert_true(descriptor_hold(&held, open("/dev/null", O_RDONLY | O_CLOEXEC)));
  int fd = held.fd;
  broken = true;
  assert_false(descriptor_is_ours(&held));
  descriptor_close(&held);
  broken = false;
  assert_int_equal(held.fd, -1);
  assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void what_is_held_is_known_and_closed(void **state)
{
  (void)state;
  struct descriptor held;
  assert_true(descriptor_hold(&held, open("/dev/null", O_RDONLY | O_CLOEXEC)));
  int fd = held.fd;
  assert_true(descriptor_is_ours(&held));
  descriptor_close(&held);
  assert_int_equal(held.fd, -1);
  assert_int_equal(fcntl(fd, F_GETFD), -1);
  assert_false(descriptor_is_ours(&held));
  descriptor_close(&held);
}

static void a_number_that_is_another_file_s_is_left_alone(void **state)
{
  (void)state;
  struct descriptor held;
  assert_true(descriptor_hold(&held, open("/dev/null", O_RDONLY | O_CLOEXEC)));
  int other = open("/dev/zero", O_RDONLY | O_CLOEXEC), fd = held.fd;
  assert_int_equal(dup2(other, fd), fd);
  assert_false(descriptor_is_ours(&held));
  descriptor_close(&held);
  assert_int_not_equal(fcntl(fd, F_GETFD), -1);
  close(fd);
  close(other);
}

static void one_that_was_closed_is_not_ours(void **state)
{
  (void)state;
  struct descriptor held;
  assert_true(descriptor_hold(&held, open("/dev/null", O_RDONLY | O_CLOEXEC)));
  close(held.fd);
  assert_false(descriptor_is_ours(&held));
  descriptor_close(&held);
  errno = EMFILE;
  assert_false(descriptor_hold(&held, -1));
  assert_int_equal(errno, EMFILE);
  assert_int_equal(held.fd, -1);
}

static void plugged_numbers_go_to_nobody_else(void **state)
{
  (void)state;
  struct descriptor_plugs plugs;
  int kept = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
  close(STDIN_FILENO);
  descriptor_plug(&plugs);
  int other = open("/dev/null", O_RDONLY | O_CLOEXEC), count = plugs.count;
  descriptor_unplug(&plugs);
  int freed = fcntl(STDIN_FILENO, F_GETFD);
  dup2(kept, STDIN_FILENO);
  close(kept);
  close(other);
  assert_true(other > STDERR_FILENO);
  assert_true(count >= 1);
  assert_int_equal(freed, -1);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_held_is_known_and_closed),
      cmocka_unit_test(a_number_that_is_another_file_s_is_left_alone),
      cmocka_unit_test(one_that_was_closed_is_not_ours),
      cmocka_unit_test(plugged_numbers_go_to_nobody_else),
      cmocka_unit_test(one_that_cannot_be_examined_is_closed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
