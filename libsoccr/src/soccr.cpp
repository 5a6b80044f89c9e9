// SPDX-License-Identifier: LGPL-2.1-only
// The C interface: handles, and errors as numbers.
#include "soccr/soccr.h"

#include <fcntl.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>

#include "base/fd.hpp"
#include "restore.hpp"
#include "save.hpp"
#include "socket.hpp"

struct soccr_socket {
  enum class Role { watched, held, restored };

  base::Fd fd;
  Role role = Role::watched;
  int reuse = 0;         // SO_REUSEADDR, which repair mode takes for itself
  soccr_fields begin{};  // of what soccr_resume has to begin; its state is 0 when nothing
};

namespace {

using Role = soccr_socket::Role;

void tell(soccr_error* error, const char* what) {
  if (error != nullptr) {
    std::strncpy(error->text, what, sizeof error->text - 1);
    error->text[sizeof error->text - 1] = 0;
  }
}

// No exception leaves the library.
template <typename Call>
int guarded(soccr_error* error, Call call) {
  try {
    call();
    return 0;
  } catch (const base::Error& caught) {
    tell(error, caught.what());
    return caught.code() != 0 ? -caught.code() : -EIO;
  } catch (const std::bad_alloc&) {
    tell(error, "out of memory");
    return -ENOMEM;
  } catch (const std::exception& caught) {
    tell(error, caught.what());
    return -EIO;
  }
}

int reuse_of(int fd) { return std::min(soccr::get<int>(fd, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR"), 1); }

void hold(soccr_socket& handle) {
  const int fd = handle.fd.get();
  if (handle.role != Role::watched || soccr::state_of(fd) == SOCCR_LISTEN) {
    return;
  }
  // Who finds it in repair mode finds the kernel's own value there.
  handle.reuse = soccr::in_repair(fd) ? 0 : reuse_of(fd);
  soccr::enter_repair(fd);
  soccr::mute(fd);
  handle.role = Role::held;
}

void resume(soccr_socket& handle, bool probe) {
  const int fd = handle.fd.get();
  if (soccr::in_repair(fd)) {
    soccr::unmute(fd);
    soccr::leave_repair(fd, probe);
    soccr::try_set(fd, SOL_SOCKET, SO_REUSEADDR, handle.reuse);
  }
  if (handle.begin.state != 0) {
    soccr::begin(fd, handle.begin);
    handle.begin = {};
  }
  handle.role = Role::watched;
}

void let_go(soccr_socket& handle) {
  if (handle.role == Role::held) {
    resume(handle, true);
  } else if (handle.role == Role::restored) {
    soccr::drop_connection(handle.fd.get());
    soccr::try_set(handle.fd.get(), SOL_SOCKET, SO_REUSEADDR, handle.reuse);
  }
}

soccr_fields known_members(const soccr_fields& from) {
  soccr_fields fields{};
  std::memcpy(&fields, &from, std::min<std::size_t>(from.size, sizeof fields));
  fields.size = sizeof fields;
  return fields;
}

base::Fd socket_for(int fd, const soccr_fields& fields) {
  if (fd < 0) {
    return base::Fd(base::check(::socket(fields.local.family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP), "socket"));
  }
  if (const int error = soccr::require_tcp(fd); error != 0) {
    throw base::Error("restore connection", "fd " + std::to_string(fd), -error, "it takes a TCP socket");
  }
  return base::Fd(base::check(::fcntl(fd, F_DUPFD_CLOEXEC, 0), "fcntl"));
}

}  // namespace

unsigned soccr_version() { return SOCCR_VERSION_MAJOR * 10000U + SOCCR_VERSION_MINOR * 100U + SOCCR_VERSION_PATCH; }

int soccr_open(int fd, soccr_socket** handle) {
  *handle = nullptr;
  if (const int error = soccr::require_tcp(fd); error != 0) {
    return error;
  }
  base::Fd own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) {
    return -errno;
  }
  *handle = new (std::nothrow) soccr_socket{std::move(own)};
  return *handle != nullptr ? 0 : -ENOMEM;
}

int soccr_state(const soccr_socket* handle) {
  if (handle->begin.state != 0) {
    return static_cast<int>(handle->begin.state);
  }
  int state = 0;
  const int error = guarded(nullptr, [&] { state = static_cast<int>(soccr::state_of(handle->fd.get())); });
  return error != 0 ? error : state;
}

int soccr_fd(const soccr_socket* handle) { return handle->fd.get(); }

int soccr_hold(soccr_socket* handle, soccr_error* error) {
  return guarded(error, [&] { hold(*handle); });
}

int soccr_resume(soccr_socket* handle, unsigned flags, soccr_error* error) {
  return guarded(error, [&] {
    if ((flags & ~SOCCR_QUIET) != 0) {
      throw base::Error("resume", "unknown flags", EINVAL);
    }
    resume(*handle, (flags & SOCCR_QUIET) == 0);
  });
}

void soccr_close(soccr_socket* handle) {
  if (handle != nullptr) {
    guarded(nullptr, [&] { let_go(*handle); });
    delete handle;
  }
}

void soccr_detach(soccr_socket* handle) { delete handle; }

int soccr_save(soccr_socket* handle, unsigned flags, soccr_saved** saved, soccr_error* error) {
  *saved = nullptr;
  return guarded(error, [&] {
    const int fd = handle->fd.get();
    if ((flags & ~SOCCR_SKIP_PENDING) != 0) {
      throw base::Error("save connection", "unknown flags", EINVAL);
    }
    if (soccr::state_of(fd) == SOCCR_LISTEN) {
      *saved = soccr::save_listener(fd, (flags & SOCCR_SKIP_PENDING) != 0).release();
      return;
    }
    if (!soccr::in_repair(fd)) {
      throw base::Error("save connection", "it is not held", EINVAL, "soccr_hold comes first");
    }
    *saved = soccr::save_connection(fd).release();
  });
}

int soccr_saved_new(const soccr_fields* fields, const void* inq, const void* outq, soccr_saved** saved,
                    soccr_error* error) {
  *saved = nullptr;
  return guarded(error, [&] {
    auto made = std::make_unique<soccr_saved>();
    made->fields = known_members(*fields);
    soccr::validate(made->fields);
    const auto* in = static_cast<const std::byte*>(inq);
    const auto* out = static_cast<const std::byte*>(outq);
    made->inq.assign(in, in + made->fields.inq_len);
    made->outq.assign(out, out + made->fields.outq_len);
    *saved = made.release();
  });
}

const soccr_fields* soccr_saved_fields(const soccr_saved* saved) { return &saved->fields; }
const void* soccr_saved_inq(const soccr_saved* saved) { return saved->inq.data(); }
const void* soccr_saved_outq(const soccr_saved* saved) { return saved->outq.data(); }
void soccr_saved_free(soccr_saved* saved) { delete saved; }

size_t soccr_encoded_size(const soccr_saved* saved) { return soccr::encoded_size(*saved); }
void soccr_encode(const soccr_saved* saved, void* buffer) { soccr::encode(*saved, static_cast<std::byte*>(buffer)); }

int soccr_decode(const void* bytes, size_t size, soccr_saved** saved, soccr_error* error) {
  *saved = nullptr;
  return guarded(error, [&] { *saved = soccr::decode({static_cast<const std::byte*>(bytes), size}).release(); });
}

int soccr_restore(int fd, const soccr_saved* saved, unsigned flags, soccr_socket** handle, soccr_error* error) {
  *handle = nullptr;
  return guarded(error, [&] {
    if (flags != 0) {
      throw base::Error("restore connection", "unknown flags", EINVAL);
    }
    const auto& fields = saved->fields;
    auto made = std::make_unique<soccr_socket>();
    made->fd = socket_for(fd, fields);
    const int own = made->fd.get();
    made->reuse = reuse_of(own);
    try {
      soccr::restore_connection(own, *saved);
    } catch (...) {
      if (soccr::in_repair(own)) {
        made->role = Role::restored;
        let_go(*made);
      }
      throw;
    }
    made->role = Role::restored;
    if (fields.state == SOCCR_LISTEN || fields.state == SOCCR_SYN_SENT) {
      made->begin = fields;
    }
    *handle = made.release();
  });
}
