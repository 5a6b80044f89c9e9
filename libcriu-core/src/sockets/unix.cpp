// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/unix.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <rpc.pb.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "log.hpp"
#include "restore_context.hpp"
#include "sockets/family.hpp"
#include "sockets/names.hpp"
#include "sockets/peer.hpp"
#include "sockets/queues.hpp"

namespace criu::sockets {

using base::check;
using base::Error;
using files::Description;
using files::Made;
using files::Saver;

namespace {

std::string name_for_people(const std::string& name) {
  if (name.empty()) {
    return "unnamed";
  }
  // A path goes up to its first zero.
  return name.front() == '\0' ? "@" + name.substr(1)
                              : std::string(name.c_str());  // NOLINT(readability-redundant-string-cstr)
}

// ---- dump -----------------------------------------------------------------------------------------------------------

bool something_waits(const Description& description, const UnixInfo& info) {
  if (info.received > 0 || info.type == SOCK_STREAM) {
    return info.received > 0;
  }
  pollfd poll{description.own, POLLIN, 0};  // packets can be empty
  return ::poll(&poll, 1, 0) > 0 && (poll.revents & POLLIN) != 0;
}

// The peer's name, also when it is in another network namespace.
std::string name_of_peer(int fd) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 || size <= offsetof(sockaddr_un, sun_path)) {
    return {};
  }
  return {address.sun_path, std::min<std::size_t>(size, sizeof address) - offsetof(sockaddr_un, sun_path)};
}

const UnixInfo& info_of(Saver& saver, const Description& description) {
  const auto* info = saver.sockets().diagnostics.find_unix(inode_of(description));
  if (info == nullptr) {
    throw Error("cannot dump", description.what() + " is a UNIX socket that the kernel's diagnostics do not show", 0,
                "it belongs to another network namespace");
  }
  return *info;
}

// Who its file belongs to, and who its peer was.
void see_inside(const namespaces::Users& users, images::unix_sk_entry& socket) {
  if (!users.own()) {
    return;
  }
  if (socket.has_file_perms()) {
    users.translate(*socket.mutable_file_perms());
  }
  if (socket.has_peer_creds()) {
    auto& peer = *socket.mutable_peer_creds();
    users.translate(peer);
    for (auto& group : *peer.mutable_groups()) {
      group = users.group(group);
    }
  }
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto& info = info_of(saver, description);
  auto& socket = *entry.mutable_usk();
  begin_entry(saver, description, entry.id(), {AF_UNIX, info.type, 0}, socket);
  socket.set_type(info.type);
  socket.set_state(info.state);
  socket.set_uflags(0);
  socket.set_backlog(info.backlog);
  socket.set_peer(info.peer);
  if (info.shutdown != 0) {
    socket.set_shutdown(static_cast<images::sk_shutdown>(info.shutdown));
  }
  save_name(description, info, socket);
  save_peer(description.own, socket);
  see_inside(*saver.dump().users, socket);
  auto& survey = saver.sockets();
  survey.unix_met.insert(info.ino);
  if (info.peer != 0 && survey.diagnostics.find_unix(info.peer) == nullptr) {
    survey.unix_elsewhere[info.peer] = name_of_peer(description.own);
  }
  if (info.state != listening && !saver.dump().look_only && something_waits(description, info)) {
    save_queue(saver, description, entry.id(), info.type);
  }
}

bool external_allowed(const Options& options, std::uint32_t ino) {
  return options.external.contains(fmt::format("unix[{}]", ino)) || options.ext_unix_sk.contains(ino) ||
         (options.ext_unix_any);
}

// A peer that nobody of the tree has: it is known by its name only.
void save_external(Saver& saver, const Description& description, const images::unix_sk_entry& socket) {
  auto& survey = saver.sockets();
  const auto* peer = survey.diagnostics.find_unix(socket.peer());
  const auto& name = peer != nullptr ? peer->name : survey.unix_elsewhere[socket.peer()];
  const auto object = fmt::format("{}: its peer, socket {} ({}), is outside the tree", description.what(),
                                  socket.peer(), name_for_people(name));
  if (peer == nullptr && name.starts_with('\0')) {
    throw Error("cannot dump", object, 0, "abstract names lead to nobody in another network namespace");
  }
  if (socket.type() != SOCK_DGRAM || name.empty()) {
    throw Error("cannot dump", object, 0,
                socket.type() == SOCK_DGRAM ? "it has no name by which it could be found again"
                                            : "a connection can be dumped with both its ends only");
  }
  if (!external_allowed(saver.dump().options, socket.peer())) {
    throw Error("cannot dump", object, 0,
                fmt::format("--ext-unix-sk or --external unix[{}] connects to that name again", socket.peer()));
  }
  if (!survey.unix_outside.insert(socket.peer()).second) {
    return;
  }
  images::file_entry entry;
  entry.set_type(images::UNIXSK);
  entry.set_id(saver.new_file_id());
  auto& outside = *entry.mutable_usk();
  outside = socket;
  outside.set_id(entry.id());
  outside.set_ino(socket.peer());
  outside.set_type(SOCK_DGRAM);
  outside.set_state(listening);
  outside.set_uflags(extern_flag);
  outside.set_peer(0);
  outside.set_name(name);
  outside.clear_name_dir();
  outside.clear_deleted();
  outside.clear_moved_to();
  outside.clear_shutdown();
  saver.put(entry);
}

// The peer is who makes this checkpoint: the next to be heard from it is that all is restored.
void save_service(images::unix_sk_entry& socket) {
  socket.set_uflags(service_flag);
  socket.set_state(closed);
  socket.set_peer(0);
}

// Who waits to be accepted must be of the tree, and silent: what it sent lies where nobody can look.
void check_pending(Saver& saver, const Description& description, const UnixInfo& info) {
  if (saver.dump().options.skip_in_flight) {
    return;
  }
  auto& survey = saver.sockets();
  for (const auto client : info.pending) {
    const auto object = fmt::format("{} has a connection waiting to be accepted", description.what());
    const char* hint = "--skip-in-flight leaves it out";
    if (client == 0) {
      throw Error("cannot dump", object + ", whose client has closed it already", 0, hint);
    }
    if (!survey.unix_met.contains(client)) {
      throw Error("cannot dump", fmt::format("{}, from socket {} outside the tree", object, client), 0, hint);
    }
    const auto* sender = survey.diagnostics.find_unix(client);
    if (sender != nullptr && sender->backlog > 0) {
      throw Error("cannot dump", object + ", whose client has sent data already", 0,
                  "the kernel shows that to nobody before it is accepted; try again a moment later");
    }
  }
}

// Peers can be told from outsiders only when all sockets are known.
void save_late(Saver& saver, const Description& description, images::file_entry& entry) {
  auto& socket = *entry.mutable_usk();
  auto& survey = saver.sockets();
  const auto* info = survey.diagnostics.find_unix(socket.ino());
  if (info == nullptr) {
    return;
  }
  if (info->state == listening) {
    return check_pending(saver, description, *info);
  }
  if (const auto ours = saver.dump().options.rpc_socket; ours != 0 && socket.ino() == ours) {
    throw Error("cannot dump", description.what() + " is the service's end of the connection that this is asked over",
                0, "the tree has to close it");
  } else if (ours != 0 && socket.peer() == ours) {
    return save_service(socket);
  }
  if (socket.peer() == 0 && info->has_peer) {
    socket.set_peer(survey.diagnostics.listener_of(socket.ino()));
    if (socket.peer() != 0 && !survey.unix_met.contains(socket.peer())) {
      throw Error("cannot dump",
                  fmt::format("{} waits to be accepted by socket {}, which is outside the tree", description.what(),
                              socket.peer()),
                  0, "a connection can be dumped with both its ends only");
    }
    if (socket.peer() == 0 && socket.type() != SOCK_DGRAM) {
      socket.set_shutdown(images::BOTH);  // the other end is gone
    } else if (socket.peer() == 0) {
      socket.set_peer_gone(true);
    }
  } else if (socket.peer() != 0 && !survey.unix_met.contains(socket.peer())) {
    save_external(saver, description, socket);
  }
}

// ---- restore --------------------------------------------------------------------------------------------------------

std::string what_is(const images::unix_sk_entry& entry) {
  return fmt::format("UNIX socket {} (file {}, {})", entry.ino(), entry.id(), name_for_people(entry.name()));
}

void check_entry(const images::unix_sk_entry& entry) {
  const bool good_type = entry.type() == SOCK_STREAM || entry.type() == SOCK_DGRAM || entry.type() == SOCK_SEQPACKET;
  const bool good_state = entry.state() == established || entry.state() == closed || entry.state() == listening;
  if (!good_type || !good_state || entry.name().size() > sizeof(sockaddr_un::sun_path) ||
      (entry.state() == listening && entry.type() == SOCK_DGRAM) || entry.backlog() > 0x7fffffff) {
    throw Error("corrupt checkpoint", what_is(entry), 0);
  }
  if (is_service(entry) && (entry.state() != closed || entry.peer() != 0)) {
    throw Error("corrupt checkpoint", what_is(entry), 0);
  }
  if ((entry.uflags() & ~(extern_flag | service_flag)) != 0) {
    throw Error("not supported by this version",
                fmt::format("{}: it was to be given by the caller or by a plugin", what_is(entry)), 0);
  }
}

// The sockets that are connected with each other, in the task that makes them.
class Web {
 public:
  Web(RestoreContext& context, std::span<const images::file_entry* const> group) : context_(context) {
    for (const auto* file : group) {
      add(file->usk(), -1);
    }
  }
  Web(RestoreContext& context, std::span<const Made> group) : context_(context) {
    for (const auto& made : group) {
      add(made.entry->usk(), made.fd);
    }
  }

  std::vector<base::Fd> make();
  void connect(const TaskImage& maker);

 private:
  struct Node {
    const images::unix_sk_entry* entry;
    int fd;
    int given;  // the descriptor that the caller has for it, -1: none
  };

  void add(const images::unix_sk_entry& entry, int fd) {
    check_entry(entry);
    by_ino_[entry.ino()] = nodes_.size();
    nodes_.push_back({&entry, fd, context_.objects.inherited.find(fmt::format("socket:[{}]", entry.ino()))});
  }
  SocketType type(const Node& node) const { return {AF_UNIX, static_cast<int>(node.entry->type()), 0}; }
  const Node* peer_of(const Node& node) const {
    const auto found = by_ino_.find(node.entry->peer());
    return node.entry->peer() == 0 || found == by_ino_.end() ? nullptr : &nodes_[found->second];
  }
  bool mutual(const Node& node) const {
    const auto* peer = peer_of(node);
    return peer != nullptr && peer != &node && peer->entry->peer() == node.entry->ino();
  }
  // Somebody besides its peer is connected to it.
  bool has_followers(const Node& node) const {
    return std::any_of(nodes_.begin(), nodes_.end(), [&](const Node& other) {
      return &other != &node && other.entry->peer() == node.entry->ino() && other.entry->ino() != node.entry->peer();
    });
  }
  // Made as a pair: what is connected both ways, or to something without a name, can have come about so only.
  bool paired(const Node& node) const {
    const auto* peer = peer_of(node);
    if (peer == nullptr || peer == &node || node.given >= 0 || peer->given >= 0 || peer->entry->state() == listening) {
      return false;
    }
    return (mutual(node) && !(has_followers(node) || has_followers(*peer))) || peer->entry->name().empty();
  }
  bool lost_its_peer(const Node& node) const {
    if (is_service(*node.entry)) {
      return true;
    }
    // A datagram socket counts as established also when others are connected to it.
    return node.entry->peer() == 0 &&
           (node.entry->type() == SOCK_DGRAM ? node.entry->peer_gone() : node.entry->state() == established);
  }

  const Node* accepted_by(const Node&) const;
  void pair_up(std::vector<base::Fd>& made, std::size_t one, std::size_t other);
  void connect_pair(std::vector<base::Fd>& made, std::size_t client, std::size_t server);
  void accept_pair(std::vector<base::Fd>& made, std::size_t client, std::size_t server);
  void fill(const Node&);
  void send_from(const Node&, const Packet&);
  void tell_restored(const Node&);
  const TaskImage& holder_of(const Node&, const TaskImage& maker);
  void connect_one(const Node&, const TaskImage& maker);
  void connect_all(const TaskImage& maker);
  void complete(const Node&);

  RestoreContext& context_;
  std::vector<Node> nodes_;
  std::map<std::uint32_t, std::size_t> by_ino_;
  std::set<std::size_t> named_;  // by having been accepted
  std::unordered_map<std::uint32_t, const TaskImage*> holders_;
};

// Both ends take who makes them for their peer.
std::pair<base::Fd, base::Fd> make_pair_of(int type, const images::unix_sk_entry& entry, const std::string& what) {
  const Guise guise(entry, what);
  int ends[2];
  check(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), "make", what);
  return {base::Fd(ends[0]), base::Fd(ends[1])};
}

// An abstract name cannot be had twice but by being accepted: the socket of that name it was accepted from, or another
// accepted one that stands for it.
const Web::Node* Web::accepted_by(const Node& node) const {
  const auto& name = node.entry->name();
  if (name.empty() || name.front() != '\0' || node.entry->type() == SOCK_DGRAM || node.entry->state() == listening) {
    return nullptr;
  }
  const Node* first = nullptr;
  for (const auto& other : nodes_) {
    if (other.entry->name() == name) {
      if (other.entry->state() == listening) {
        return &other;
      }
      first = first == nullptr ? &other : first;
    }
  }
  return first == &node ? nullptr : first;
}

// Ends that take different ones for their peers were not made as a pair: whose name is the listener's was accepted.
void Web::pair_up(std::vector<base::Fd>& made, std::size_t one, std::size_t other) {
  const auto& a = *nodes_[one].entry;
  const auto& b = *nodes_[other].entry;
  if (!same_peer(a, b) && a.name().empty() != b.name().empty() && a.type() != SOCK_DGRAM) {
    return a.name().empty() ? connect_pair(made, one, other) : connect_pair(made, other, one);
  }
  std::tie(made[one], made[other]) = make_pair_of(type(nodes_[one]).type, a, what_is(a));
}

// Through a passing listener.
void Web::connect_pair(std::vector<base::Fd>& made, std::size_t client, std::size_t server) {
  const auto& entry = *nodes_[server].entry;
  const auto what = what_is(entry);
  const auto listener = make_socket(type(nodes_[server]), what);
  context_.objects.socket_names.bind(listener.get(), entry, what);
  {
    const Guise guise(*nodes_[client].entry, what);
    check(::listen(listener.get(), 1), "listen with", what);
  }
  const auto target = target_of(listener.get(), entry, what);
  made[client] = make_socket(type(nodes_[client]), what);
  {
    const AnybodyMay anybody(target, what);
    const Guise guise(entry, what);
    check(::connect(made[client].get(), reinterpret_cast<const sockaddr*>(target.address.data()),
                    static_cast<socklen_t>(target.address.size())),
          "connect", what);
  }
  made[server] = base::Fd(check(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept", what));
  named_.insert(server);
}

// Connects and accepts: as the pair came about.
void Web::accept_pair(std::vector<base::Fd>& made, std::size_t client, std::size_t server) {
  const auto& node = nodes_[server];
  const auto what = what_is(*node.entry);
  const auto address = address_of(node.entry->name());
  const auto* by = accepted_by(node);
  const int listener = made[static_cast<std::size_t>(by - nodes_.data())].get();
  if (by->entry->state() != listening) {
    throw Error("not supported by this version",
                what + ": another socket has the same abstract name, and the listener of both is gone", 0);
  }
  made[client] = make_socket(type(node), what);
  context_.objects.socket_names.bind(made[client].get(), *nodes_[client].entry, what);
  {
    const Guise guise(*node.entry, what);
    check(::connect(made[client].get(), reinterpret_cast<const sockaddr*>(address.data()),
                    static_cast<socklen_t>(address.size())),
          "connect", what);
  }
  made[server] = base::Fd(check(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC), "accept", what));
}

std::vector<base::Fd> Web::make() {
  std::vector<base::Fd> made(nodes_.size());
  std::vector<std::pair<std::size_t, std::size_t>> late;  // clients and who was accepted for them
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const auto& node = nodes_[i];
    const auto what = what_is(*node.entry);
    if (made[i]) {
      continue;
    }
    if (node.given >= 0) {
      made[i] = files::copy_inherited(node.given, what);
    } else if (paired(node)) {
      const auto other = by_ino_.at(node.entry->peer());
      if (made[other] || nodes_[other].entry->type() != node.entry->type()) {
        throw Error("corrupt checkpoint", what + ": its peer is another one's too", 0);
      }
      if (const auto* listener = accepted_by(node); listener != nullptr || accepted_by(nodes_[other]) != nullptr) {
        const bool accepted = listener != nullptr;
        late.emplace_back(accepted ? other : i, accepted ? i : other);
        continue;
      }
      pair_up(made, i, other);
    } else if (lost_its_peer(node)) {
      auto& lost = context_.objects.lost_peers[node.entry->id()];
      std::tie(made[i], lost) = make_pair_of(type(node).type, *node.entry, what);
      lost = context_.internal(std::move(lost));
    }
  }
  // A pair may be claimed by its second end only.
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const auto& node = nodes_[i];
    const auto what = what_is(*node.entry);
    if (node.given >= 0 ||
        std::any_of(late.begin(), late.end(), [&](const auto& pair) { return pair.first == i || pair.second == i; })) {
      continue;
    }
    if (!made[i]) {
      made[i] = make_socket(type(node), what);
    }
    if (!named_.contains(i)) {
      context_.objects.socket_names.bind(made[i].get(), *node.entry, what);
    }
    if (node.entry->state() == listening) {
      const Guise guise(*node.entry, what);
      check(::listen(made[i].get(), static_cast<int>(node.entry->backlog())), "listen with", what);
    }
  }
  for (const auto& [client, server] : late) {
    if (!made[client]) {
      accept_pair(made, client, server);
    }
  }
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const auto& entry = *nodes_[i].entry;
    if (nodes_[i].given >= 0) {
      continue;
    }
    context_.objects.socket_options.restore_early(made[i].get(), type(nodes_[i]), entry.opts(), what_is(entry));
    compare_peer(made[i].get(), entry, what_is(entry));
  }
  return made;
}

void Web::send_from(const Node& node, const Packet& packet) {
  const auto what = what_is(*node.entry);
  const auto target = target_of(node.fd, *node.entry, what);
  // Where the sender is at hand it has the name; a path is given to a passing one as well.
  for (const auto& other : nodes_) {
    if (!packet.from.empty() && other.entry->name() == packet.from && other.entry->type() == SOCK_DGRAM) {
      return send_packet(context_, other.fd, packet, target.address, what);
    }
  }
  const auto passing = make_socket(type(node), what);
  if (!packet.from.empty()) {
    images::unix_sk_entry sender;
    sender.set_name(packet.from);
    try {
      context_.objects.socket_names.bind(passing.get(), sender, "a sender to " + what);
    } catch (const Error& error) {
      LOG_WARN("{}: a packet in its queue loses the name of its sender: {}", what, error.what());
    }
  }
  send_packet(context_, passing.get(), packet, target.address, what);
}

// Before anything is connected one way: a socket with a peer takes packets from nobody else.
void Web::fill(const Node& node) {
  const auto* file = context_.checkpoint.find_file(images::UNIXSK, node.entry->id());
  const auto packets = context_.checkpoint.queues.of(*file);
  if (packets.empty()) {
    return;
  }
  const auto what = what_is(*node.entry);
  int sender = -1;
  if (const auto lost = context_.objects.lost_peers.find(node.entry->id()); lost != context_.objects.lost_peers.end()) {
    sender = lost->second.get();
  } else if (paired(node)) {
    sender = peer_of(node)->fd;
  } else {
    for (const auto& other : nodes_) {
      if (paired(other) && peer_of(other) == &node) {
        sender = other.fd;
      }
    }
  }
  if (sender < 0 && (node.entry->type() != SOCK_DGRAM || node.entry->name().empty())) {
    throw Error("corrupt checkpoint", what + " has unread data, but nobody it could come from", 0);
  }
  if (sender >= 0) {
    constexpr int ample = 1 << 30;
    check(force(sender, SOL_SOCKET, SO_SNDBUFFORCE, ample), "make room for the queue of", what);
  }
  for (const auto* packet : packets) {
    if (sender >= 0) {
      send_packet(context_, sender, *packet, {}, what);
    } else {
      send_from(node, *packet);
    }
  }
}

// As the answer to what it had asked for when it was dumped.
void Web::tell_restored(const Node& node) {
  const auto peer = context_.objects.lost_peers.find(node.entry->id());
  if (!is_service(*node.entry) || peer == context_.objects.lost_peers.end()) {
    return;
  }
  images::criu_resp response;
  response.set_type(images::DUMP);
  response.set_success(true);
  response.mutable_dump()->set_restored(true);
  const auto packet = response.SerializeAsString();
  check(::send(peer->second.get(), packet.data(), packet.size(), MSG_NOSIGNAL), "answer", what_is(*node.entry));
}

// A task that has a socket open; whoever makes it, where only a queue has it.
const TaskImage& Web::holder_of(const Node& node, const TaskImage& maker) {
  if (holders_.empty()) {
    for (const auto& task : context_.checkpoint.tasks) {
      for (const auto& fd : task->fds) {
        holders_.try_emplace(fd.id(), task.get());
      }
    }
  }
  const auto found = holders_.find(node.entry->id());
  return found == holders_.end() ? maker : *found->second;
}

void Web::connect_one(const Node& node, const TaskImage& maker) {
  const auto what = what_is(*node.entry);
  std::string address;
  base::Fd file;
  if (const auto* peer = peer_of(node)) {
    auto target = target_of(peer->fd, *peer->entry, what);
    address = std::move(target.address);
    file = std::move(target.file);
  } else {
    const images::unix_sk_entry* outside = nullptr;
    for (const auto& [key, entry] : context_.checkpoint.files) {
      if (key.first == images::UNIXSK && entry.usk().ino() == node.entry->peer() && is_external(entry.usk())) {
        outside = &entry.usk();
      }
    }
    if (outside == nullptr) {
      throw Error("corrupt checkpoint", fmt::format("{}: its peer {} is missing", what, node.entry->peer()), 0);
    }
    if (!external_allowed(context_.options, outside->ino())) {
      throw Error("cannot restore", what + ": its peer is outside the tree", 0,
                  fmt::format("--ext-unix-sk connects it to {} again", name_for_people(outside->name())));
    }
    address = address_of(outside->name());
  }
  check(::fcntl(node.fd, F_SETFL, O_NONBLOCK), "prepare", what);
  const auto connect = [&] {
    return ::connect(node.fd, reinterpret_cast<const sockaddr*>(address.data()),
                     static_cast<socklen_t>(address.size()));
  };
  // Who waits to be accepted is told to whoever accepts it: it is taken for the task that has it open.
  if (const auto* peer = peer_of(node); peer != nullptr && peer->entry->state() == listening) {
    const auto& creds = holder_of(node, maker).core.thread_core().creds();
    const Guise guise(creds.euid(), creds.egid(), what);
    if (connect() == 0) {
      return;
    }
  }
  check(connect(), "connect", what);
}

// Each before the one it is connected to: whoever has a peer already takes no other but that one.
void Web::connect_all(const TaskImage& maker) {
  std::vector<const Node*> left;
  for (const auto& node : nodes_) {
    if (node.entry->peer() != 0 && !paired(node)) {
      left.push_back(&node);
    }
  }
  while (!left.empty()) {
    std::set<std::uint32_t> wanted;
    for (const auto* node : left) {
      if (node->entry->peer() != node->entry->ino() && !mutual(*node)) {
        wanted.insert(node->entry->peer());
      }
    }
    const auto ready = std::stable_partition(left.begin(), left.end(),
                                             [&](const Node* node) { return wanted.contains(node->entry->ino()); });
    if (ready == left.end()) {
      throw Error("corrupt checkpoint", what_is(*left.front()->entry) + ": its peers are a circle", 0);
    }
    std::for_each(ready, left.end(), [&](const Node* node) { connect_one(*node, maker); });
    left.erase(ready, left.end());
  }
}

void Web::complete(const Node& node) {
  const auto& entry = *node.entry;
  const auto what = what_is(entry);
  // A mate from the making of a pair that is no peer any more.
  if (entry.peer() == 0 && !lost_its_peer(node)) {
    for (const auto& other : nodes_) {
      if (paired(other) && peer_of(other) == &node) {
        const sockaddr nobody{AF_UNSPEC, {}};
        check(::connect(node.fd, &nobody, sizeof nobody), "disconnect", what);
      }
    }
  }
  if (entry.has_shutdown() && entry.shutdown() != images::NONE) {
    const int how = static_cast<int>(entry.shutdown()) - 1;
    if (::shutdown(node.fd, how) < 0 && errno != ENOTCONN) {
      check(-1, "shut down", what);
    }
  }
  auto& options = context_.objects.socket_options;
  options.restore_sizes(node.fd, type(node), entry.opts(), what);
  options.restore_late(node.fd, type(node), entry.opts(), what);
  check(::fcntl(node.fd, F_SETFL, static_cast<int>(entry.flags() & files::settable_flags)), "set flags of", what);
}

void Web::connect(const TaskImage& maker) {
  // What the caller gives is used as it is, connected or not.
  if (std::erase_if(nodes_, [](const Node& node) { return node.given >= 0; }) > 0) {
    by_ino_.clear();
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      by_ino_[nodes_[i].entry->ino()] = i;
    }
  }
  for (const auto& node : nodes_) {
    fill(node);
    tell_restored(node);
  }
  for (const auto& node : nodes_) {
    context_.objects.lost_peers.erase(node.entry->id());
  }
  connect_all(maker);
  for (const auto& node : nodes_) {
    complete(node);
  }
}

}  // namespace

const files::Kind unix_kind = {
    .type = images::UNIXSK,
    .name = "UNIX socket",
    .recognise = is_of<AF_UNIX>,
    .save = save,
    .save_late = save_late,
    .owner = [](images::file_entry& entry) { return entry.mutable_usk()->mutable_fown(); },
    .group =
        [](const Checkpoint& checkpoint, const images::file_entry& entry) {
          const auto group = checkpoint.unix_groups.find(entry.usk().ino());
          return group == checkpoint.unix_groups.end() ? 0 : std::uint64_t{1} << 32 | group->second;
        },
    .maker =
        [](const Checkpoint& checkpoint, const images::file_entry& entry) {
          const auto group = checkpoint.unix_groups.find(entry.usk().ino());
          const auto maker = group == checkpoint.unix_groups.end() ? checkpoint.unix_makers.end()
                                                                   : checkpoint.unix_makers.find(group->second);
          return maker == checkpoint.unix_makers.end() ? pid_t{0} : maker->second;
        },
    .make = [](RestoreContext& context,
               std::span<const images::file_entry* const> group) { return Web(context, group).make(); },
    .connect = [](RestoreContext& context, const TaskImage& maker,
                  std::span<const Made> group) { Web(context, group).connect(maker); },
};

}  // namespace criu::sockets
