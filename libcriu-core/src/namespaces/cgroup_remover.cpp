// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/cgroup_remover.hpp"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <vector>

#include "base/error.hpp"
#include "log.hpp"
#include "task/tree.hpp"

namespace criu::namespaces {

using base::check;

namespace {

enum : char { noted = '+', forgotten = '-', kept = '=', failed = '!' };

// Packets of one of these, the hierarchy, a zero and the path.
constexpr std::size_t longest = 1 + NAME_MAX + 1 + PATH_MAX;

[[noreturn]] void serve(int line, const std::function<void(const CgroupRemover::Place&)>& remove) {
  ::setsid();  // what a terminal has to say is for the restore
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  std::vector<CgroupRemover::Place> places;
  std::string packet(longest, '\0');
  for (ssize_t size = 0; (size = ::recv(line, packet.data(), packet.size(), 0)) > 0 && packet[0] != failed;) {
    if (packet[0] == kept) {
      ::_exit(0);
    }
    if (packet[0] == forgotten) {
      places.pop_back();
      continue;
    }
    const auto text = packet.substr(1, static_cast<std::size_t>(size) - 1);
    const auto zero = text.find('\0');
    places.emplace_back(text.substr(0, zero), text.substr(zero + 1));
  }
  std::for_each(places.rbegin(), places.rend(), remove);
  ::_exit(0);
}

}  // namespace

CgroupRemover::CgroupRemover(const RestoreContext& context, const std::function<void(const Place&)>& remove) {
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "make a socket pair");
  base::Fd theirs(ends[1]);
  line_ = context.internal(base::Fd(ends[0]));
  const auto needed = task::needed_pids(context.checkpoint);
  // It may happen to get a pid that the tree needs: then it is in the way until there is one with another.
  std::vector<pid_t> wrong;
  do {
    pid_ = check(::fork(), "make a process that removes control groups if need be");
    if (pid_ == 0) {
      line_.reset();
      serve(theirs.get(), remove);
    }
    wrong.push_back(pid_);
  } while (std::binary_search(needed.begin(), needed.end(), pid_));
  wrong.pop_back();
  for (const auto pid : wrong) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

void CgroupRemover::tell(char what, const std::string& more) {
  const auto packet = what + more;
  if (::send(line_.get(), packet.data(), packet.size(), MSG_NOSIGNAL) < 0) {
    LOG_WARN("who removes control groups if the restore fails has ended: {}", std::strerror(errno));
  }
}

void CgroupRemover::note(const Place& place) { tell(noted, place.first + '\0' + place.second); }

void CgroupRemover::forget_last() { tell(forgotten); }

void CgroupRemover::keep() {
  tell(kept);
  await_end();
}

void CgroupRemover::await_end() {
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
}

CgroupRemover::~CgroupRemover() {
  if (pid_ != 0) {
    tell(failed);
    await_end();
  }
}

}  // namespace criu::namespaces
