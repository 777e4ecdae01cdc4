/* Runs a program and strikes at one of its system calls: kills it just before or just after the call takes effect, or
 * makes the call fail.
 *
 *   tracer [option...] FOLDER REPORT PROGRAM [ARGUMENT...]
 *
 *   --kill POINT              kill it there; a POINT is WHEN:N:CALL:OBJECT, as in "after:2:unlink:token.json.tmp": just
 *                             before or after the N-th unlink of a file of this name
 *   --at POINT --do COMMAND   run a shell command there, while the program stands still
 *   --exhaust POINT           from there on the program gets no descriptor any more: it has got as many as it may have
 *   --fail CALL:ERROR:N:COUNT the N-th call of this group on a file in FOLDER fails, and those behind it up to COUNT;
 *                             0: all of them. CALL is a group of the table below, ERROR a name as ENOSPC
 *   --lift PATH               calls fail no longer once the program has tried to open PATH
 *   --at-lift COMMAND         run a shell command then
 *   --at-connect COMMAND      run a shell command when the program first connects to anybody, before it does
 *   --list                    report every point
 *   --all                     there are points for each system call whatever, from the start
 *
 * There are two points for each system call that concerns a file in FOLDER, and from the first lock on two for each
 * system call whatever: one before it is carried out and one after it. All threads of the program count, programs that
 * it starts do not.
 *
 * REPORT gets one line for each thing that happened, its fields separated by tabs:
 *
 *   pid NUMBER
 *   point before|after N CALL OBJECT           the one that was asked for; with --list all, up to where it is killed
 *   fail CALL OBJECT before|after              struck before or after the first connect
 *   end exit|signal NUMBER
 *
 * The tracer ends as the program did. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH = 4096, LINE = 512, THREADS = 64, KINDS = 1024, NOTHING = -1 };

static const struct {
  uint64_t number;
  const char *name;
} names[] = {
#include "calls.h"
};

/* Where a call names its object: the argument that is a path, the one that is a descriptor. */
static const struct {
  const char *name;
  int path, descriptor;
} shapes[] = {
    {"open", 0, NOTHING},      {"openat", 1, NOTHING},      {"creat", 0, NOTHING},      {"rename", 1, NOTHING},
    {"renameat", 3, NOTHING},  {"renameat2", 3, NOTHING},   {"unlink", 0, NOTHING},     {"unlinkat", 1, NOTHING},
    {"stat", 0, NOTHING},      {"lstat", 0, NOTHING},       {"newfstatat", 1, 0},       {"statx", 1, 0},
    {"access", 0, NOTHING},    {"faccessat", 1, NOTHING},   {"faccessat2", 1, NOTHING}, {"readlink", 0, NOTHING},
    {"utimensat", 1, 0},       {"read", NOTHING, 0},        {"pread64", NOTHING, 0},    {"write", NOTHING, 0},
    {"pwrite64", NOTHING, 0},  {"close", NOTHING, 0},       {"fstat", NOTHING, 0},      {"fsync", NOTHING, 0},
    {"fdatasync", NOTHING, 0}, {"fallocate", NOTHING, 0},   {"ftruncate", NOTHING, 0},  {"fchmod", NOTHING, 0},
    {"fcntl", NOTHING, 0},     {"flock", NOTHING, 0},       {"mmap", NOTHING, 4},       {"lseek", NOTHING, 0},
    {"sendto", NOTHING, 0},    {"recvfrom", NOTHING, 0},    {"sendmsg", NOTHING, 0},    {"recvmsg", NOTHING, 0},
    {"connect", NOTHING, 0},   {"getsockopt", NOTHING, 0},  {"setsockopt", NOTHING, 0}, {"getsockname", NOTHING, 0},
    {"ioctl", NOTHING, 0},     {"getpeername", NOTHING, 0}, {"shutdown", NOTHING, 0},   {"dup", NOTHING, 0}};

/* What --fail names. Of fcntl only the lock calls: see is_lock. */
static const struct {
  const char *name, *calls;
} groups[] = {{"write", " write pwrite64 writev pwritev "},
              {"read", " read pread64 "},
              {"fsync", " fsync fdatasync "},
              {"rename", " rename renameat renameat2 "},
              {"open", " open openat creat "},
              {"close", " close "},
              {"stat", " stat lstat fstat newfstatat statx "},
              {"chmod", " fchmod "},
              {"unlink", " unlink unlinkat "},
              {"fallocate", " fallocate "},
              {"mmap", " mmap "},
              {"lock", " fcntl flock "}};

static const struct {
  const char *name;
  int number;
} errors[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EROFS", EROFS},   {"EACCES", EACCES}, {"EINTR", EINTR},
              {"EDQUOT", EDQUOT}, {"ENOMEM", ENOMEM}, {"EMFILE", EMFILE}, {"ENOLCK", ENOLCK}};

struct call {
  const char *name;
  char object[PATH]; /* a path, "socket:[123]", or nothing */
  bool inside;       /* concerns a file in the folder */
  const char *lock;  /* "lock" or "unlock", of a lock call */
};

struct thread {
  pid_t id;
  char line[LINE]; /* its present call and what that is about, for the report */
  long occurrence; /* so many of the same kind there have been, this one included */
  bool counted;    /* it is one of the points */
  int cause;       /* why it fails; 0: it does not */
};

struct fault {
  const char *calls; /* NULL: none */
  int cause;
  long first, count;
};

static struct {
  /* what is asked for */
  const char *folder, *lift, *at_lift, *at_connect;
  FILE *report;
  const char *point; /* NULL: none */
  enum { TO_KILL, TO_RUN, TO_EXHAUST } deed;
  const char *command; /* TO_RUN */
  struct fault fault;
  bool list, all;
  /* what has happened */
  pid_t program;
  struct thread threads[THREADS];
  struct kind {
    char line[LINE];
    long count;
  } kinds[KINDS];
  long matches;
  bool locked, lifted, connected, exhausted;
  int status;
} run;

static void need(bool truth, const char *what)
{
  if (truth)
    return;
  fprintf(stderr, "tracer: %s: %s\n", what, strerror(errno));
  exit(125);
}

/* ---- what a machine calls its registers ---- */

#if defined(__x86_64__)

/* The call under way is not carried out. */
static void skip(pid_t thread)
{
  need(ptrace(PTRACE_POKEUSER, thread, offsetof(struct user, regs.orig_rax), -1L) == 0, "skip a call");
}

static void set_result(pid_t thread, long result)
{
  need(ptrace(PTRACE_POKEUSER, thread, offsetof(struct user, regs.rax), result) == 0, "set a result");
}

#elif defined(__aarch64__)

static void skip(pid_t thread)
{
  int number = -1;
  struct iovec place = {&number, sizeof number};
  need(ptrace(PTRACE_SETREGSET, thread, (void *)NT_ARM_SYSTEM_CALL, &place) == 0, "skip a call");
}

static void set_result(pid_t thread, long result)
{
  struct user_regs_struct registers;
  struct iovec place = {&registers, sizeof registers};
  need(ptrace(PTRACE_GETREGSET, thread, (void *)NT_PRSTATUS, &place) == 0, "get registers");
  registers.regs[0] = (unsigned long long)result;
  need(ptrace(PTRACE_SETREGSET, thread, (void *)NT_PRSTATUS, &place) == 0, "set a result");
}

#else
#error "this machine's registers are not known here"
#endif

/* ---- what a call is about ---- */

static bool peek(pid_t thread, uint64_t address, void *bytes, size_t size)
{
  struct iovec here = {bytes, size}, there = {(void *)(uintptr_t)address, size};
  return process_vm_readv(thread, &here, 1, &there, 1, 0) == (ssize_t)size;
}

/* Piece by piece: what follows a string's end may not be readable. */
static void peek_string(pid_t thread, uint64_t address, char text[PATH])
{
  enum { PIECE = 64 };
  size_t length = 0;
  while (length < PATH - PIECE) {
    size_t size = PIECE - (address + length) % PIECE;
    if (!peek(thread, address + length, text + length, size))
      break;
    size_t found = strnlen(text + length, size);
    length += found;
    if (found < size)
      break;
  }
  text[length] = '\0';
}

static void name_descriptor(pid_t thread, uint64_t descriptor, char text[PATH])
{
  char link[64];
  snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)thread, (int)descriptor);
  ssize_t length = readlink(link, text, PATH - 1);
  text[length > 0 ? length : 0] = '\0';
}

static const char *name_of(uint64_t number)
{
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].number == number)
      return names[i].name;
  return "?";
}

/* One that is relative starts from the folder whose descriptor stands in front of it. A name that is made up anew in
 * each run is the same in all reports. */
static void peek_path(pid_t thread, const uint64_t *arguments, int path, struct call *call)
{
  size_t length = 0;
  char name[PATH] = "";
  peek_string(thread, arguments[path], name);
  if (name[0] && name[0] != '/' && path > 0 && arguments[path - 1] < FD_SETSIZE) {
    name_descriptor(thread, arguments[path - 1], call->object);
    length = strlen(call->object);
    length += length < PATH - 1;
    call->object[length - 1] = '/';
  }
  for (const char *next = name; *next && length < PATH - 1; next++)
    call->object[length++] = *next;
  call->object[length] = '\0';
}

static void hide_made_up_name(char *object)
{
  char *made_up = strstr(object, ".tmp-");
  if (made_up)
    made_up[strlen(".tmp")] = '\0';
}

static void find_object(pid_t thread, const uint64_t *arguments, struct call *call)
{
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    if (strcmp(shapes[i].name, call->name) != 0)
      continue;
    if (shapes[i].path != NOTHING)
      peek_path(thread, arguments, shapes[i].path, call);
    if (shapes[i].descriptor != NOTHING && !call->object[0])
      name_descriptor(thread, arguments[shapes[i].descriptor], call->object);
  }
  hide_made_up_name(call->object);
  size_t length = strlen(run.folder);
  const char *end = call->object + length;
  call->inside = strncmp(call->object, run.folder, length) == 0 && (*end == '\0' || *end == '/');
}

static const char *lock_kind(pid_t thread, const char *name, const uint64_t *arguments)
{
  struct flock range = {.l_type = F_RDLCK};
  if (strcmp(name, "flock") == 0)
    return arguments[1] & 8 /* LOCK_UN */ ? "unlock" : "lock";
  if (strcmp(name, "fcntl") != 0)
    return NULL;
  int command = (int)arguments[1];
  if (command != F_OFD_SETLK && command != F_OFD_SETLKW && command != F_SETLK && command != F_SETLKW)
    return NULL;
  return peek(thread, arguments[2], &range, sizeof range) && range.l_type == F_UNLCK ? "unlock" : "lock";
}

static struct call describe(pid_t thread, const struct __ptrace_syscall_info *info)
{
  struct call call = {.name = name_of(info->entry.nr)};
  find_object(thread, info->entry.args, &call);
  call.lock = lock_kind(thread, call.name, info->entry.args);
  return call;
}

static const char *shown(const struct call *call)
{
  const char *slash = strrchr(call->object, '/');
  if (strncmp(call->object, "socket:", 7) == 0)
    return "socket";
  if (strcmp(call->object, run.folder) == 0)
    return ".";
  return slash ? slash + 1 : call->object;
}

/* ---- striking ---- */

static long count_occurrence(const char *line)
{
  struct kind *kind = run.kinds;
  while (kind < run.kinds + KINDS && kind->count && strcmp(kind->line, line) != 0)
    kind++;
  need(kind < run.kinds + KINDS, "too many kinds of calls");
  snprintf(kind->line, sizeof kind->line, "%s", line);
  return ++kind->count;
}

static void run_command(const char *command)
{
  if (command)
    need(system(command) == 0, command);
}

static void do_deed(pid_t thread, bool before)
{
  if (run.deed == TO_RUN) {
    run_command(run.command);
  } else if (run.deed == TO_EXHAUST) {
    run.exhausted = true;
  } else {
    if (before)
      skip(thread);
    need(kill(run.program, SIGKILL) == 0, "kill");
  }
}

static void strike_at_point(const struct thread *thread, const char *when)
{
  char point[LINE + 64];
  snprintf(point, sizeof point, "%s:%ld:%s", when, thread->occurrence, thread->line);
  *strchr(point, '\t') = ':';
  bool here = run.point && strcmp(point, run.point) == 0;
  if (here || run.list)
    fprintf(run.report, "point\t%s\t%ld\t%s\n", when, thread->occurrence, thread->line);
  if (here)
    do_deed(thread->id, strcmp(when, "before") == 0);
}

static bool fails(const struct call *call)
{
  char word[64];
  snprintf(word, sizeof word, " %s ", call->name);
  if (!run.fault.calls || !strstr(run.fault.calls, word) || !call->inside)
    return false;
  if (strcmp(call->name, "fcntl") == 0 && !call->lock)
    return false;
  long number = ++run.matches;
  return !run.lifted && number >= run.fault.first &&
         (run.fault.count == 0 || number < run.fault.first + run.fault.count);
}

static void heed_connect(pid_t thread, const struct call *call, const uint64_t *arguments)
{
  sa_family_t family = AF_UNSPEC;
  if (run.connected || strcmp(call->name, "connect") != 0 || !peek(thread, arguments[1], &family, sizeof family) ||
      (family != AF_INET && family != AF_INET6))
    return;
  run.connected = true;
  run_command(run.at_connect);
}

static void heed_lift(const struct call *call)
{
  if (run.lifted || !run.lift || strcmp(call->object, run.lift) != 0)
    return;
  run.lifted = true;
  run.exhausted = false;
  run_command(run.at_lift);
}

static bool takes_descriptor(const struct call *call, const uint64_t *arguments)
{
  static const char calls[] = " open openat creat socket socketpair accept accept4 pipe pipe2 eventfd2 epoll_create1 "
                              "dup dup3 memfd_create inotify_init1 timerfd_create signalfd4 ";
  char word[64];
  snprintf(word, sizeof word, " %s ", call->name);
  return strstr(calls, word) ||
         (strcmp(call->name, "fcntl") == 0 && (arguments[1] == F_DUPFD || arguments[1] == F_DUPFD_CLOEXEC));
}

/* Why the call fails; 0: it does not. */
static int find_cause(const struct thread *thread, const struct call *call, const uint64_t *arguments)
{
  if (run.exhausted && takes_descriptor(call, arguments))
    return EMFILE;
  if (!fails(call))
    return 0;
  fprintf(run.report, "fail\t%s\t%s\n", thread->line, run.connected ? "after" : "before");
  return run.fault.cause;
}

static void on_entry(struct thread *thread, const struct __ptrace_syscall_info *info)
{
  struct call call = describe(thread->id, info);
  heed_connect(thread->id, &call, info->entry.args);
  heed_lift(&call);
  run.locked = run.locked || (call.lock && call.inside);
  thread->counted = run.all || run.locked || call.inside;
  if (thread->counted) {
    snprintf(thread->line, sizeof thread->line, "%s\t%s%s%.255s", call.name, call.lock ? call.lock : "",
             call.lock ? " " : "", shown(&call));
    thread->occurrence = count_occurrence(thread->line);
    strike_at_point(thread, "before");
  }
  thread->cause = find_cause(thread, &call, info->entry.args);
  if (thread->cause)
    skip(thread->id);
}

static void on_exit_of_call(struct thread *thread)
{
  if (thread->cause)
    set_result(thread->id, -(long)thread->cause);
  thread->cause = 0;
  if (thread->counted)
    strike_at_point(thread, "after");
}

/* ---- following the program ---- */

static struct thread *thread_of(pid_t id)
{
  struct thread *vacant = NULL;
  for (int i = 0; i < THREADS; i++) {
    struct thread *thread = &run.threads[i];
    if (thread->id == id)
      return thread;
    if (!thread->id && !vacant)
      vacant = thread;
  }
  need(vacant != NULL, "too many threads");
  *vacant = (struct thread){.id = id};
  return vacant;
}

static void on_call(struct thread *thread)
{
  struct __ptrace_syscall_info info;
  long size = ptrace(PTRACE_GET_SYSCALL_INFO, thread->id, (void *)sizeof info, &info);
  if (size < 0 && errno == ESRCH)
    return; /* killed meanwhile */
  need(size > 0, "PTRACE_GET_SYSCALL_INFO");
  if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
    on_entry(thread, &info);
  else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
    on_exit_of_call(thread);
}

/* The signal that the thread goes on with. */
static int on_stop(struct thread *thread, int status)
{
  int number = WSTOPSIG(status);
  if (number == (SIGTRAP | 0x80)) {
    on_call(thread);
    return 0;
  }
  bool traced = status >> 16 != 0 || number == SIGSTOP; /* a new thread, or the news of it */
  return traced ? 0 : number;
}

static void follow(void)
{
  int status;
  pid_t id;
  while ((id = waitpid(-1, &status, __WALL)) > 0) {
    struct thread *thread = thread_of(id);
    if (WIFSTOPPED(status)) {
      int number = on_stop(thread, status);
      need(ptrace(PTRACE_SYSCALL, id, 0, (long)number) == 0 || errno == ESRCH, "PTRACE_SYSCALL");
      continue;
    }
    thread->id = 0;
    if (id == run.program)
      run.status = status;
  }
  need(errno == ECHILD, "waitpid");
}

static void start(char **command)
{
  int status;
  run.program = fork();
  need(run.program >= 0, "fork");
  if (run.program == 0) {
    need(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0, "this system does not let a program be traced");
    raise(SIGSTOP);
    execvp(*command, command);
    need(false, *command);
  }
  need(waitpid(run.program, &status, 0) == run.program, "waitpid");
  if (!WIFSTOPPED(status))
    exit(125);
  long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
  need(ptrace(PTRACE_SETOPTIONS, run.program, 0, options) == 0, "PTRACE_SETOPTIONS");
  need(ptrace(PTRACE_SYSCALL, run.program, 0, 0) == 0, "PTRACE_SYSCALL");
}

/* ---- what is asked for ---- */

static void misused(const char *what)
{
  fprintf(stderr, "tracer: %s; see spec/crash/tracer.c\n", what);
  exit(125);
}

static struct fault read_fault(char *text)
{
  struct fault fault = {0};
  const char *group = strtok(text, ":"), *error = strtok(NULL, ":"), *first = strtok(NULL, ":"),
             *count = strtok(NULL, ":");
  if (!count)
    misused("--fail takes CALL:ERROR:N:COUNT");
  for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
    if (strcmp(groups[i].name, group) == 0)
      fault.calls = groups[i].calls;
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
    if (strcmp(errors[i].name, error) == 0)
      fault.cause = errors[i].number;
  fault.first = strtol(first, NULL, 10);
  fault.count = strtol(count, NULL, 10);
  if (!fault.calls || !fault.cause || fault.first < 1)
    misused("--fail names a call or an error that is not known");
  return fault;
}

static void read_option(int letter)
{
  switch (letter) {
  case 'k':
    run.point = optarg;
    break;
  case 'e':
    run.point = optarg;
    run.deed = TO_EXHAUST;
    break;
  case 't':
    run.point = optarg;
    run.deed = TO_RUN;
    break;
  case 'd':
    run.command = optarg;
    break;
  case 'f':
    run.fault = read_fault(optarg);
    break;
  case 'l':
    run.lift = optarg;
    break;
  case 'c':
    run.at_connect = optarg;
    break;
  case 'o':
    run.at_lift = optarg;
    break;
  case 'a':
    run.list = true;
    break;
  case 'A':
    run.all = true;
    break;
  default:
    misused("an option is not known");
  }
}

static char **read_arguments(int count, char **arguments)
{
  static const struct option options[] = {{"kill", required_argument, NULL, 'k'},
                                          {"fail", required_argument, NULL, 'f'},
                                          {"at", required_argument, NULL, 't'},
                                          {"do", required_argument, NULL, 'd'},
                                          {"exhaust", required_argument, NULL, 'e'},
                                          {"at-lift", required_argument, NULL, 'o'},
                                          {"lift", required_argument, NULL, 'l'},
                                          {"at-connect", required_argument, NULL, 'c'},
                                          {"list", no_argument, NULL, 'a'},
                                          {"all", no_argument, NULL, 'A'},
                                          {0}};
  int letter;
  while ((letter = getopt_long(count, arguments, "+", options, NULL)) != -1)
    read_option(letter);
  if (count - optind < 3)
    misused("FOLDER, REPORT and PROGRAM are needed");
  run.folder = arguments[optind];
  run.report = fopen(arguments[optind + 1], "we");
  need(run.report != NULL, arguments[optind + 1]);
  return arguments + optind + 2;
}

int main(int count, char **arguments)
{
  start(read_arguments(count, arguments));
  fprintf(run.report, "pid\t%d\n", (int)run.program);
  follow();
  bool exited = WIFEXITED(run.status);
  int number = exited ? WEXITSTATUS(run.status) : WTERMSIG(run.status);
  fprintf(run.report, "end\t%s\t%d\n", exited ? "exit" : "signal", number);
  need(fclose(run.report) == 0, "the report");
  return exited ? number : 128 + number;
}
