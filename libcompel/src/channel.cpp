// SPDX-License-Identifier: LGPL-2.1-only
#include "channel.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/error.hpp>
#include <cerrno>
#include <climits>
#include <cstring>

#include "parasite.hpp"

namespace {

// struct robust_list_head of the kernel.
struct RobustHead {
  void* next;
  long futex_offset;
  void* pending;
};

}  // namespace

namespace compel {
namespace {

constexpr std::uint32_t bell = FUTEX_OWNER_DIED;  // means that only where there is no owner

}  // namespace

bool answered(const compel_slot& slot) {
  return __atomic_load_n(&slot.answered, __ATOMIC_ACQUIRE) == __atomic_load_n(&slot.posted, __ATOMIC_RELAXED);
}

void ring(compel_slot& slot, std::uint32_t* life) {
  __atomic_store_n(&slot.posted, slot.posted + 1, __ATOMIC_RELEASE);
  __atomic_fetch_xor(life, bell, __ATOMIC_ACQ_REL);
  ::syscall(SYS_futex, life, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool wait_for_answer(compel_slot& slot) {
  const std::uint32_t seen = __atomic_load_n(&slot.answered, __ATOMIC_ACQUIRE);
  if (seen == slot.posted) {
    return true;
  }
  const timespec patience{0, 10'000'000};
  return ::syscall(SYS_futex, &slot.answered, FUTEX_WAIT, seen, &patience, nullptr, 0) == 0 || errno != ETIMEDOUT;
}

void send_descriptor(int socket, int fd) {
  char byte = 'f';
  iovec vector{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
  base::check(::sendmsg(socket, &message, MSG_NOSIGNAL), "send descriptor", std::to_string(fd));
}

}  // namespace compel

std::uint32_t* compel_parasite::life_word() const {
  return reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(control_) + control_->life_offset);
}

// The life of this thread, for those inside: a robust mutex, which the kernel lets go when the thread ends.
void compel_parasite::lock_life() {
  static_assert(sizeof(pthread_mutex_t) <= sizeof control_->mutex);
  auto* mutex = reinterpret_cast<pthread_mutex_t*>(control_->mutex);
  if (!mutex_made_) {
    pthread_mutexattr_t kind;
    ::pthread_mutexattr_init(&kind);
    ::pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
    ::pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
    const int error = ::pthread_mutex_init(mutex, &kind);
    ::pthread_mutexattr_destroy(&kind);
    if (error != 0) {
      throw base::Error("make a mutex", "", error);
    }
    mutex_made_ = true;
  }
  const int error = ::pthread_mutex_lock(mutex);
  if (error != 0) {
    throw base::Error("lock a mutex", "", error);
  }
  life_held_ = true;
  // Where in the mutex is the lock word? The libc has told the kernel: the newest entry of this thread's robust list is
  // ours, and the list's head says how far the word is from an entry.
  RobustHead* head = nullptr;
  std::size_t size = 0;
  base::check(static_cast<int>(::syscall(SYS_get_robust_list, 0, &head, &size)), "get_robust_list");
  const std::uintptr_t entry = reinterpret_cast<std::uintptr_t>(head->next) & ~std::uintptr_t{1};
  const std::uintptr_t offset =
      entry + static_cast<std::uintptr_t>(head->futex_offset) - reinterpret_cast<std::uintptr_t>(control_);
  if (offset > sizeof control_->mutex - sizeof(std::uint32_t)) {
    unlock_life();
    throw base::Error("find the lock word of a robust mutex", "", EOPNOTSUPP, "this libc keeps its list another way");
  }
  control_->life_offset = static_cast<std::uint32_t>(offset);
}

void compel_parasite::unlock_life() noexcept {
  if (life_held_) {
    // The bell is not the libc's; without it the word is what the libc expects.
    __atomic_fetch_and(life_word(), ~std::uint32_t{FUTEX_OWNER_DIED}, __ATOMIC_ACQ_REL);
    ::pthread_mutex_unlock(reinterpret_cast<pthread_mutex_t*>(control_->mutex));
    life_held_ = false;
  }
}
