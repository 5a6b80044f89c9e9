// SPDX-License-Identifier: LGPL-2.1-only
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "base/error.hpp"
#include "log.hpp"
#include "rpc/worker.hpp"
#include "session.hpp"

namespace criu::rpc {

using base::check;
using base::Error;

namespace {

constexpr const char* usual_address = "./criu_service.socket";

class Service {
 public:
  explicit Service(const Options& options) : options_(options) {
    ::sigemptyset(&children_);
    ::sigaddset(&children_, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &children_, &before_);
    ended_ = base::Fd(check(::signalfd(-1, &children_, SFD_CLOEXEC), "watch for workers that end"));
    listen();
  }

  void run() {
    if (options_.detach) {
      go_to_background();
    }
    write_pidfile(options_, ::getpid());
    tell_ready(options_);
    LOG_INFO("The service listens at {}", address());
    for (;;) {
      pollfd events[] = {{listener_.get(), POLLIN, 0}, {ended_.get(), POLLIN, 0}};
      if (::poll(events, 2, -1) < 0 && errno != EINTR) {
        throw Error("wait for clients", address(), errno);
      }
      if ((events[1].revents & POLLIN) != 0) {
        reap();
      }
      if ((events[0].revents & POLLIN) != 0) {
        accept();
      }
    }
  }

 private:
  std::string address() const { return options_.address.empty() ? usual_address : options_.address; }

  void listen() {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    const auto path = address();
    if (path.size() >= sizeof name.sun_path) {
      throw Error("listen at", path, ENAMETOOLONG);
    }
    path.copy(name.sun_path, path.size());
    listener_ = base::Fd(check(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "make a socket"));
    ::unlink(path.c_str());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
    check(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&name), size), "listen at", path);
    check(::chmod(path.c_str(), 0666), "open to everybody", path);
    constexpr int backlog = 16;
    check(::listen(listener_.get(), backlog), "listen at", path);
  }

  static void go_to_background() {
    if (check(::fork(), "fork") != 0) {
      ::_exit(0);
    }
    check(::setsid(), "lead a session");
    const base::Fd null(check(::open("/dev/null", O_RDWR | O_CLOEXEC), "open", "/dev/null"));
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
      if (fd != log::descriptor()) {
        ::dup2(null.get(), fd);
      }
    }
  }

  void reap() {
    signalfd_siginfo info{};
    [[maybe_unused]] const auto got = ::read(ended_.get(), &info, sizeof info);
    int status = 0;
    for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
      if (WIFEXITED(status)) {
        LOG_INFO("Worker(pid {}) exited with {}", pid, WEXITSTATUS(status));
      } else {
        LOG_INFO("Worker(pid {}) was killed by {}: {}", pid, WTERMSIG(status), ::strsignal(WTERMSIG(status)));
      }
    }
  }

  void accept() {
    base::Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) {
      LOG_WARN("A client is gone before it was served: {}", std::strerror(errno));
      return;
    }
    const auto pid = ::fork();
    if (pid < 0) {
      LOG_ERROR("No worker for a client: {}", std::strerror(errno));
    } else if (pid == 0) {
      ::_exit(work(std::move(client)));
    }
  }

  // In the worker. None of what this service was told is meant for it.
  int work(base::Fd client) {
    listener_.reset();
    ended_.reset();
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
    try {
      Channel channel(std::move(client));
      // What the client could not do itself the service does not do for it.
      if (channel.peer_user() != 0 && channel.peer_user() != ::geteuid()) {
        throw Error("serve", "user " + std::to_string(channel.peer_user()), EPERM,
                    "the service works for root and for who runs it");
      }
      return serve(std::move(channel), Options{}, false);
    } catch (const Error& error) {
      LOG_ERROR("{}", error.what());
      return 255;
    }
  }

  const Options& options_;
  sigset_t children_{}, before_{};
  base::Fd listener_, ended_;
};

}  // namespace

void run_service(const Options& options) { Service(options).run(); }

}  // namespace criu::rpc
