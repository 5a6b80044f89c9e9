// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/keepers.hpp"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "base/error.hpp"
#include "log.hpp"
#include "outside.hpp"
#include "sockets/keeper_line.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

std::string call(Call what, const Packed& with = {}) {
  return outside::ask({outside::Errand::Kind::connections, static_cast<std::uint32_t>(what)}, with.bytes());
}

}  // namespace

void Keepers::Unmap::operator()(Line* line) const { ::munmap(line, sizeof(Line)); }

Keepers::Keepers(NetworkLockMethod wanted, const std::vector<Connection>& ends, bool silent, const std::string& name) {
  Packed with;
  with.put(wanted).put(silent).put_text(name).put(ends.size());
  for (const auto& connection : ends) {
    with.put(connection);
  }
  method_ = static_cast<NetworkLockMethod>(std::stoi(call(Call::lock, with)));
}

Keepers::~Keepers() {
  try {
    call(Call::unlock);
    hang_up(false);
    call(Call::end);
  } catch (const Error& error) {
    LOG_ERROR("{}", error.what());
  }
}

void Keepers::add(std::span<const Met> met, const std::vector<base::Fd>& sockets) {
  const base::Fd memory(
      check(::memfd_create("connections", MFD_CLOEXEC), "make memory shared with who keeps connections"));
  check(::ftruncate(memory.get(), sizeof(Line)), "make memory shared with who keeps connections");
  void* at = ::mmap(nullptr, sizeof(Line), PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (at == MAP_FAILED) {
    throw Error("map memory shared with who keeps connections", {}, errno);
  }
  std::unique_ptr<Line, Unmap> line(new (at) Line);
  Packed with;
  with.put(memory.get()).put(sockets.size());
  for (std::size_t i = 0; i < sockets.size(); ++i) {
    with.put(sockets[i].get()).put_text(met[i].what);
  }
  try {
    call(Call::keep, with);
  } catch (const Error&) {
    ::pthread_mutex_unlock(&line->mutex);  // the list of what dies with this thread goes through it
    throw;
  }
  lines_.push_back(std::move(line));
}

void Keepers::engage() { tables_ = static_cast<unsigned>(std::stoul(call(Call::engage))); }

Keepers::Copying::Copying(Keepers& keepers, std::size_t index, const images::sk_opts_entry& options)
    : keepers_(keepers) {
  auto& line = *keepers.lines_.back();
  line.reuseaddr = options.reuseaddr() ? 1 : 0;
  line.oobinline = options.so_oobinline() != 0 ? 1 : 0;
  line.peek_off = -1;
  for (const auto& other : options.other()) {
    if (other.level() == SOL_SOCKET && other.option() == SO_PEEK_OFF && other.value().size() == sizeof line.peek_off) {
      std::memcpy(&line.peek_off, other.value().data(), sizeof line.peek_off);
    }
  }
  line.copied = static_cast<int>(index);
}

Keepers::Copying::~Copying() { keepers_.lines_.back()->copied = Line::nobody; }

void Keepers::at_the_end() {
  for (const auto& line : lines_) {
    line->at_the_end = true;
  }
}

void Keepers::complete() {
  hang_up(true);
  call(Call::complete);
}

void Keepers::hang_up(bool gone) {
  for (const auto& line : lines_) {
    line->gone = gone;
    ::pthread_mutex_unlock(&line->mutex);
  }
  lines_.clear();
}

}  // namespace criu::sockets
