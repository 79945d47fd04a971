// Limits of the process (ulimit -v, -u, -n) that are too low make the runtimes of Go and Rust end it
// with a trace, at start or at any later moment. Nothing inside them can prevent that. So where such a
// limit is low, this code runs before Go's runtime starts and forks: the child becomes the program,
// and the parent passes its stderr on, but makes one line of a trace, and exits with its exit code.

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t program;

// The low limits, as in "ulimit -u 3".
static char limits[128];

static void note_limit(int resource, rlim_t below, const char *option, rlim_t unit) {
  struct rlimit l;
  if (getrlimit(resource, &l) != 0 || l.rlim_cur == RLIM_INFINITY || l.rlim_cur >= below) return;
  const size_t n = strlen(limits);
  snprintf(limits + n, sizeof limits - n, "%sulimit %s %llu", n > 0 ? ", " : "", option,
           (unsigned long long)(l.rlim_cur / unit));
}

static void fail(const char *reason) {
  dprintf(2,
          "ptune: error: out of memory, threads or open files (%s); "
          "these limits are too low: %s\n",
          reason, limits);
  _exit(1);
}

// The terminal sends its signals to both processes; others know only this one.
static void forward(int signal, siginfo_t *info, void *context) {
  (void)context;
  if (info->si_code <= 0) kill(program, signal);
}

static int is_trace(const char *line) {
  const char *const first[] = {"fatal error: ", "runtime: ", "runtime/cgo: ", "memory allocation of "};
  for (size_t i = 0; i < sizeof first / sizeof *first; i++)
    if (strncmp(line, first[i], strlen(first[i])) == 0) return 1;
  return 0;
}

// Passes lines on to stderr until a trace begins, whose first line becomes the reason.
static void relay(int from, char *reason, size_t size) {
  FILE *lines = fdopen(from, "r");
  if (lines == NULL) return;
  char line[4096];
  while (fgets(line, sizeof line, lines) != NULL) {
    if (*reason == 0 && is_trace(line)) {
      line[strcspn(line, "\n")] = 0;
      snprintf(reason, size, "%s", line);
    }
    if (*reason == 0 && write(2, line, strlen(line)) < 0) break;
  }
  fclose(lines);
}

__attribute__((constructor)) static void watch_limits(void) {
  // The numbers of threads and files that a run may need. Any address space can be too small for
  // some model.
  note_limit(RLIMIT_AS, RLIM_INFINITY, "-v", 1024);
  note_limit(RLIMIT_NPROC, 1024, "-u", 1);
  note_limit(RLIMIT_NOFILE, 64, "-n", 1);
  if (*limits == 0) return;

  int ends[2];
  if (pipe(ends) != 0) fail("pipe failed");
  program = fork();
  if (program < 0) fail("fork failed");
  if (program == 0) {
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    return;
  }
  close(ends[1]);
  struct sigaction a;
  memset(&a, 0, sizeof a);
  a.sa_sigaction = forward;
  a.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(SIGINT, &a, NULL);
  sigaction(SIGTERM, &a, NULL);
  sigaction(SIGHUP, &a, NULL);
  sigaction(SIGUSR1, &a, NULL);

  char reason[200] = "";
  relay(ends[0], reason, sizeof reason);
  int status = 0;
  if (waitpid(program, &status, 0) < 0) fail("wait failed");
  if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || *reason == 0)) _exit(WEXITSTATUS(status));
  if (*reason != 0) fail(reason);
  switch (WTERMSIG(status)) {
  case SIGABRT:
  case SIGBUS:
  case SIGILL:
  case SIGSEGV:
  case SIGTRAP: fail(strsignal(WTERMSIG(status)));
  }
  _exit(128 + WTERMSIG(status));
}
