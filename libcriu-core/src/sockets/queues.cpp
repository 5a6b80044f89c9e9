// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/queues.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/kernel.hpp"
#include "files/saver.hpp"
#include "log.hpp"
#include "restore_context.hpp"
#include "sockets/call.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

constexpr std::size_t most_rights = 253;  // SCM_MAX_FD
constexpr std::uint32_t rights_type = 1;  // SCM_RIGHTS, as images have it

// One packet as it is looked at. What a stream had before descriptors comes with them: the kernel shows no bound there.
struct Received {
  std::string bytes;
  std::vector<base::Fd> rights;
  std::optional<ucred> sender;
  std::string from;
  bool packet = false;  // there was one, though it may be empty
};

class Peeker {
 public:
  Peeker(int fd, bool stream, const std::string& what)
      : fd_(fd), stream_(stream), what_(what), room_(std::size_t{1} << 16) {}

  // Nothing: the end of the queue.
  std::optional<Received> next() {
    Received received;
    while (part(received)) {
    }
    if (!received.packet) {
      return std::nullopt;
    }
    return received;
  }

 private:
  // False when the packet is complete.
  bool part(Received& received) {
    sockaddr_un address{};
    iovec data{room_.data(), room_.size()};
    msghdr message{};
    message.msg_name = &address;
    message.msg_namelen = sizeof address;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control_.data();
    message.msg_controllen = control_.size();
    const auto got = ::recvmsg(fd_, &message, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == ECONNRESET || errno == EINVAL)) {
      return false;  // also a socket that was never connected
    }
    check(got, "look into the queue of", what_);
    take_control(message, received);
    if (got == 0 && (stream_ || !received.sender)) {
      return false;  // the end of a connection
    }
    received.packet = true;
    received.bytes.append(room_.data(), static_cast<std::size_t>(got));
    if (message.msg_namelen > offsetof(sockaddr_un, sun_path)) {
      received.from.assign(address.sun_path, message.msg_namelen - offsetof(sockaddr_un, sun_path));
    }
    return (message.msg_flags & MSG_TRUNC) != 0;
  }

  void take_control(msghdr& message, Received& received) {
    for (auto* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
      if (control->cmsg_level != SOL_SOCKET) {
        continue;
      }
      const auto size = control->cmsg_len - CMSG_LEN(0);
      constexpr int scm_pidfd = 4;  // Linux 6.5
      if (control->cmsg_type == SCM_RIGHTS || control->cmsg_type == scm_pidfd) {
        for (std::size_t i = 0; i < size / sizeof(int); ++i) {
          int fd = -1;
          std::memcpy(&fd, CMSG_DATA(control) + i * sizeof fd, sizeof fd);
          base::Fd own(fd);
          if (control->cmsg_type == SCM_RIGHTS) {
            received.rights.push_back(std::move(own));
          }
        }
      } else if (control->cmsg_type == SCM_CREDENTIALS) {
        received.sender.emplace();
        std::memcpy(&*received.sender, CMSG_DATA(control), sizeof *received.sender);
      }
    }
    if ((message.msg_flags & MSG_CTRUNC) != 0) {
      throw Error("look into the queue of", what_ + ": the descriptors in it could not all be received", 0,
                  "the limit on open files may be too low");
    }
  }

  int fd_;
  bool stream_;
  const std::string& what_;
  std::vector<char> room_;
  alignas(cmsghdr) std::array<char, 2048> control_{};
};

void put_control(msghdr& message, std::vector<char>& room, int type, const void* value, std::size_t size) {
  const auto at = room.size();
  room.resize(at + CMSG_SPACE(size));
  cmsghdr header{};
  header.cmsg_len = CMSG_LEN(size);
  header.cmsg_level = SOL_SOCKET;
  header.cmsg_type = type;
  std::memcpy(room.data() + at, &header, sizeof header);
  std::memcpy(room.data() + at + CMSG_LEN(0), value, size);
  message.msg_control = room.data();
  message.msg_controllen = room.size();
}

std::string read_packet(const RestoreContext& context, const Packet& packet, const std::string& what) {
  std::string bytes(packet.length, '\0');
  for (std::size_t done = 0; done < bytes.size();) {
    const auto got = check(::pread(context.objects.socket_queues.get(), bytes.data() + done, bytes.size() - done,
                                   static_cast<off_t>(packet.offset + done)),
                           "read what was queued in", what);
    if (got == 0) {
      throw Error("corrupt image", "sk-queues.img ends early", 0);
    }
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

}  // namespace

Queues::Queues(const image::Directory& images) {
  auto reader = images.open(image::type::sk_queues);
  images::sk_packet_entry entry;
  while (reader && reader->next(entry)) {
    Packet packet{reader->offset(), entry.length(), {}, {}, entry.from()};
    for (const auto& scm : entry.scm()) {
      if (scm.type() != rights_type || static_cast<std::size_t>(scm.rights_size()) > most_rights ||
          !packet.rights.empty()) {
        throw Error("corrupt image",
                    fmt::format("{}: control data in the queue of file {}", reader->name(), entry.id_for()), 0);
      }
      packet.rights.assign(scm.rights().begin(), scm.rights().end());
    }
    if (entry.has_sender()) {
      packet.sender = entry.sender();
    }
    reader->skip(entry.length());
    packets_[entry.id_for()].push_back(std::move(packet));
  }
}

std::vector<const Packet*> Queues::of(const images::file_entry& socket) const {
  std::vector<const Packet*> packets;
  if (const auto found = packets_.find(socket.id()); found != packets_.end() && socket.type() == images::UNIXSK) {
    for (const auto& packet : found->second) {
      packets.push_back(&packet);
    }
  }
  return packets;
}

void save_queue(files::Saver& saver, const files::Description& description, std::uint32_t id, int type) {
  const auto what = description.what();
  const int fd = description.own;
  const Borrowed offset(fd, SOL_SOCKET, SO_PEEK_OFF, 0, what);
  // With it each packet tells whose it is, and an empty one differs from the end.
  const Borrowed credentials(fd, SOL_SOCKET, SO_PASSCRED, 1, what);
  Peeker peeker(fd, type == SOCK_STREAM, what);
  while (auto received = peeker.next()) {
    images::sk_packet_entry entry;
    entry.set_id_for(id);
    entry.set_length(static_cast<std::uint32_t>(received->bytes.size()));
    if (!received->rights.empty()) {
      auto& scm = *entry.add_scm();
      scm.set_type(rights_type);
      for (auto& right : received->rights) {
        scm.add_rights(saver.refer_in_flight(std::move(right), "a descriptor in the queue of " + what));
      }
    }
    if (received->sender && received->sender->pid != 0) {
      entry.mutable_sender()->set_pid(static_cast<std::uint32_t>(received->sender->pid));
      entry.mutable_sender()->set_uid(received->sender->uid);
      entry.mutable_sender()->set_gid(received->sender->gid);
      saver.dump().users->translate(*entry.mutable_sender());
    }
    if (type == SOCK_DGRAM && !received->from.empty()) {
      entry.set_from(received->from);
    }
    auto& image = saver.image(image::type::sk_queues);
    image.write(entry);
    image.raw(std::as_bytes(std::span(received->bytes)));
  }
}

void send_packet(const RestoreContext& context, int fd, const Packet& packet, const std::string& address,
                 const std::string& what) {
  auto bytes = read_packet(context, packet, what);
  auto name = address;
  iovec data{bytes.data(), bytes.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!name.empty()) {
    message.msg_name = name.data();
    message.msg_namelen = static_cast<socklen_t>(name.size());
  }
  std::vector<char> control;
  std::vector<base::Fd> files;
  std::vector<int> numbers;
  for (const auto id : packet.rights) {
    files.push_back(context.files.fetch(context, id, "the queue of " + what));
    numbers.push_back(files.back().get());
  }
  if (!numbers.empty()) {
    put_control(message, control, SCM_RIGHTS, numbers.data(), numbers.size() * sizeof(int));
  }
  const auto rights_end = control.size();
  if (packet.sender) {
    const ucred sender{static_cast<pid_t>(packet.sender->pid()), packet.sender->uid(), packet.sender->gid()};
    put_control(message, control, SCM_CREDENTIALS, &sender, sizeof sender);
  }
  auto sent = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno == ESRCH && packet.sender) {
    LOG_WARN("{}: data in its queue came from task {}, which is no more", what, packet.sender->pid());
    message.msg_controllen = rights_end;
    sent = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  if (check(sent, "fill the queue of", what) != static_cast<ssize_t>(bytes.size())) {
    throw Error("fill the queue of", what + ": it does not take all", 0);
  }
}

}  // namespace criu::sockets
