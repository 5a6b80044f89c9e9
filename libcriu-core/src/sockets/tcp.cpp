// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/tcp.hpp"

#include <fmt/format.h>
#include <soccr/soccr.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <span>

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

constexpr std::size_t spare_descriptors = 128;

std::size_t copies_at_once() {
  rlimit limit{};
  check(::getrlimit(RLIMIT_NOFILE, &limit), "read the limit on open files");
  return std::max<std::size_t>(limit.rlim_cur, 2 * spare_descriptors) - spare_descriptors;
}

// Copies of the first `most` of them.
std::vector<base::Fd> fetch(std::span<const Met> met, std::size_t most) {
  std::vector<base::Fd> copies;
  copies.reserve(std::min(met.size(), most));
  base::Fd pidfd;
  pid_t pid = 0;
  for (const auto& one : met.first(std::min(met.size(), most))) {
    if (one.pid != pid) {
      pid = one.pid;
      pidfd.reset(static_cast<int>(check(::syscall(SYS_pidfd_open, pid, 0), "open pidfd for", one.what)));
    }
    copies.emplace_back(static_cast<int>(check(::syscall(SYS_pidfd_getfd, pidfd.get(), one.fd, 0), "fetch", one.what)));
  }
  return copies;
}

}  // namespace

void Connections::meet(const files::Description& description, const images::inet_sk_entry& entry) {
  known_.emplace(entry.ino(), met_.size());
  met_.push_back({description.pid, description.fd, description.what()});
  ends_.push_back(ends_of(entry));
}

// From here on something of the connections would be left, if it were not for the keepers.
void Connections::begin(const DumpContext& context) {
  keepers_ =
      std::make_unique<Keepers>(context.options.network_lock, ends_, context.options.final_state == FinalState::killed,
                                lock_name(context.run_id, context.options.tree));
  method_ = keepers_->method();
  fetch_from(0);
  keepers_->engage();
}

void Connections::fetch_from(std::size_t index) {
  const auto rest = std::span<const Met>(met_).subspan(index);
  sockets_.clear();
  sockets_ = fetch(rest, copies_at_once());
  first_ = index;
  keepers_->add(rest.first(sockets_.size()), sockets_);
}

void Connections::save(DumpContext& context, const files::Description& description, images::inet_sk_entry& entry) {
  const auto index = known_.at(entry.ino());
  if (keepers_ == nullptr) {
    begin(context);
  }
  if (index >= first_ + sockets_.size()) {
    fetch_from(index);
  }
  Saved saved;
  {
    const Keepers::Copying copying(*keepers_, index - first_, entry.opts());
    Soccr socket(sockets_[index - first_].get(), description.what());
    socket.hold();
    saved = socket.save();
    socket.resume(SOCCR_QUIET);
  }
  const auto& fields = *soccr_saved_fields(saved.get());
  entry.set_state(fields.state);  // the peer may have had the last word since
  auto image = context.images.create(image::type::tcp_stream, entry.ino());
  image.write(stream_of(*saved));
  image.raw({static_cast<const std::byte*>(soccr_saved_inq(saved.get())), fields.inq_len});
  image.raw({static_cast<const std::byte*>(soccr_saved_outq(saved.get())), fields.outq_len});
  image.finish();
  if (++saved_ == met_.size()) {
    sockets_.clear();
    if (context.options.final_state == FinalState::running) {
      keepers_.reset();
    }
  }
}

Survey::Survey() = default;
Survey::~Survey() = default;

NetworkLockMethod Survey::lock_method(const DumpContext&) const {
  const auto method = connections != nullptr ? connections->method() : NetworkLockMethod::any;
  // Without connections nothing is locked; iptables is what CRIU takes it for when nothing is said.
  return method == NetworkLockMethod::any ? NetworkLockMethod::iptables : method;
}

unsigned Survey::lock_tables() const { return connections != nullptr ? connections->lock_tables() : 0; }

Keepers* Survey::keepers() { return connections != nullptr ? connections->keepers() : nullptr; }

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
