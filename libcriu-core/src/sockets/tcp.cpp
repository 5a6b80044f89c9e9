// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/tcp.hpp"

#include <fmt/format.h>
#include <soccr/soccr.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dump_context.hpp"
#include "files/kind.hpp"
#include "restore_context.hpp"
#include "sockets/diag.hpp"
#include "sockets/soccr_call.hpp"
#include "sockets/survey.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

base::Fd fetch(pid_t pid, int fd, const std::string& what) {
  const base::Fd pidfd(static_cast<int>(check(::syscall(SYS_pidfd_open, pid, 0), "open pidfd for", what)));
  return base::Fd(static_cast<int>(check(::syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0), "fetch", what)));
}

}  // namespace

void Connections::meet(const files::Description& description, const images::inet_sk_entry& entry) {
  met_.push_back({description.pid, description.fd, description.what()});
  ends_.push_back(ends_of(entry));
}

void Connections::lock(const DumpContext& context) {
  method_ = choose_lock(context.options.network_lock);
  if (method_ != NetworkLockMethod::skip) {
    remove_stale_locks(method_, context.options.tree);
    lock_ = std::make_unique<NetworkLock>(method_, ends_);
  }
}

void Connections::save(DumpContext& context, const files::Description& description, images::inet_sk_entry& entry) {
  if (method_ == NetworkLockMethod::any) {
    lock(context);
  }
  const auto what = description.what();
  const auto fd = fetch(description.pid, description.fd, what);
  Soccr socket(fd.get(), what);
  socket.hold();
  const auto saved = socket.save();
  socket.resume(SOCCR_QUIET);
  const auto& fields = *soccr_saved_fields(saved.get());
  entry.set_state(fields.state);  // the peer may have had the last word since
  auto image = context.images.create(image::type::tcp_stream, entry.ino());
  image.write(stream_of(*saved));
  image.raw({static_cast<const std::byte*>(soccr_saved_inq(saved.get())), fields.inq_len});
  image.raw({static_cast<const std::byte*>(soccr_saved_outq(saved.get())), fields.outq_len});
  image.finish();
}

std::unique_ptr<Farewell> Connections::farewell(const DumpContext& context) {
  const auto root = context.options.tree;
  const std::vector<Met> nobody;  // a tree that is only stopped keeps its sockets
  return std::make_unique<Farewell>(root, context.options.final_state == FinalState::killed ? met_ : nobody,
                                    lock_.get(), lock_name(context.run_id, root), lock_owner(root));
}

Survey::Survey() = default;
Survey::~Survey() = default;

NetworkLockMethod Survey::lock_method(const DumpContext&) const {
  const auto method = connections != nullptr ? connections->method() : NetworkLockMethod::any;
  // Without connections nothing is locked; iptables is what CRIU takes it for when nothing is said.
  return method == NetworkLockMethod::any ? NetworkLockMethod::iptables : method;
}

unsigned Survey::lock_tables() const { return connections != nullptr ? connections->lock_tables() : 0; }

std::unique_ptr<Farewell> Survey::farewell(const DumpContext& context) {
  return connections != nullptr ? connections->farewell(context) : nullptr;
}

void restore_connection(RestoreContext& context, int fd, const images::inet_sk_entry& entry, const std::string& what) {
  const auto* saved = context.objects.tcp.find(entry.id());
  if (saved == nullptr) {
    // As after a close by the peer: reads end, writes fail.
    if (::shutdown(fd, SHUT_RDWR) < 0 && errno != ENOTCONN) {
      check(-1, "shut down", what);
    }
    return;
  }
  if (entry.state() == syn_sent) {
    return;  // it calls when all tasks run
  }
  Soccr socket(fd, *saved, what);
  socket.detach();
}

}  // namespace criu::sockets
