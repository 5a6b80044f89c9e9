// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/ipc_queues.hpp"

#include <fmt/format.h>
#include <ipc-msg.pb.h>
#include <ipc-sem.pb.h>
#include <sys/msg.h>
#include <sys/sem.h>

#include <cstring>
#include <vector>

#include "namespaces/ipc_objects.hpp"
#include "namespaces/ipc_variables.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

constexpr std::size_t padding = 8;
constexpr std::uint32_t largest_message = 1U << 24;  // more than msgmax can be set to
constexpr std::uint32_t most_semaphores = 65535;

std::size_t padded(std::size_t size) { return (size + padding - 1) / padding * padding; }

// The largest argument type that semctl takes; the C library leaves it to the caller.
union SemArgument {
  int value;
  semid_ds* set;
  unsigned short* values;
  seminfo* info;
};

// What msgrcv fills in: the type, then the text.
class MessageBuffer {
 public:
  explicit MessageBuffer(std::size_t size) : bytes_(sizeof(long) + padded(size)) {}
  void* get() { return bytes_.data(); }
  long type() const {
    long type = 0;
    std::memcpy(&type, bytes_.data(), sizeof type);
    return type;
  }
  void set_type(long type) { std::memcpy(bytes_.data(), &type, sizeof type); }
  std::byte* text() { return bytes_.data() + sizeof(long); }
  std::size_t room() const { return bytes_.size() - sizeof(long); }

 private:
  std::vector<std::byte> bytes_;
};

void save_queue(const Users& users, image::Writer& image, int id, const msqid_ds& queue, MessageBuffer& buffer) {
  images::ipc_msg_entry entry;
  save_desc(users, queue.msg_perm, id, *entry.mutable_desc());
  entry.set_qbytes(static_cast<std::uint32_t>(queue.msg_qbytes));
  entry.set_qnum(static_cast<std::uint32_t>(queue.msg_qnum));
  image.write(entry);
  const auto what = name_object("message queue", entry.desc());
  for (std::uint32_t i = 0; i < entry.qnum(); ++i) {
    // With MSG_COPY the number of the message stands in the place of its type, and the queue keeps it.
    const auto size =
        static_cast<std::size_t>(check(::msgrcv(id, buffer.get(), buffer.room(), i, MSG_COPY | IPC_NOWAIT),
                                       "copy a message of", what, "needs a kernel with CONFIG_CHECKPOINT_RESTORE"));
    images::ipc_msg message;
    message.set_mtype(static_cast<std::uint64_t>(buffer.type()));
    message.set_msize(static_cast<std::uint32_t>(size));
    image.write(message);
    std::memset(buffer.text() + size, 0, padded(size) - size);
    image.raw({buffer.text(), padded(size)});
  }
}

void restore_queue(image::Reader& reader, const images::ipc_msg_entry& entry) {
  check_desc(entry.desc(), reader.name().c_str());
  const auto what = name_object("message queue", entry.desc());
  // A queue gets the limit of the moment; to raise it afterwards would take a capability more.
  set_queue_limit(entry.qbytes());
  const int id = make_object(
      "msg", entry.desc(), what, [](key_t key, int flags) { return ::msgget(key, flags); },
      [](int made) { ::msgctl(made, IPC_RMID, nullptr); });
  images::ipc_msg message;
  for (std::uint32_t i = 0; i < entry.qnum(); ++i) {
    if (!reader.next(message) || message.msize() > largest_message || padded(message.msize()) > reader.left() ||
        static_cast<long>(message.mtype()) <= 0) {
      throw Error("corrupt image", fmt::format("{}: message {} of {}", reader.name(), i, what), 0);
    }
    const auto text = reader.raw(padded(message.msize()));
    MessageBuffer buffer(message.msize());
    buffer.set_type(static_cast<long>(message.mtype()));
    std::memcpy(buffer.text(), text.data(), message.msize());
    check(::msgsnd(id, buffer.get(), message.msize(), IPC_NOWAIT), "fill", what);
  }
  msqid_ds queue{};
  check(::msgctl(id, IPC_STAT, &queue), "look at", what);
  if (set_owner(queue.msg_perm, entry.desc())) {
    check(::msgctl(id, IPC_SET, &queue), "set the owner of", what);
  }
}

void save_set(const Users& users, image::Writer& image, int id, const semid_ds& set) {
  images::ipc_sem_entry entry;
  save_desc(users, set.sem_perm, id, *entry.mutable_desc());
  entry.set_nsems(static_cast<std::uint32_t>(set.sem_nsems));
  image.write(entry);
  std::vector<unsigned short> values(padded(set.sem_nsems * sizeof(unsigned short)) / sizeof(unsigned short));
  SemArgument argument{};
  argument.values = values.data();
  check(::semctl(id, 0, GETALL, argument), "read", name_object("semaphore set", entry.desc()));
  image.raw(std::as_bytes(std::span(values)));
}

void restore_set(image::Reader& reader, const images::ipc_sem_entry& entry) {
  check_desc(entry.desc(), reader.name().c_str());
  const auto what = name_object("semaphore set", entry.desc());
  const auto size = padded(std::size_t{entry.nsems()} * sizeof(unsigned short));
  if (entry.nsems() == 0 || entry.nsems() > most_semaphores || size > reader.left()) {
    throw Error("corrupt image", fmt::format("{}: {} of {} semaphores", reader.name(), what, entry.nsems()), 0);
  }
  const auto raw = reader.raw(size);
  std::vector<unsigned short> values(entry.nsems());
  std::memcpy(values.data(), raw.data(), values.size() * sizeof(unsigned short));
  const int id = make_object(
      "sem", entry.desc(), what,
      [&](key_t key, int flags) { return ::semget(key, static_cast<int>(entry.nsems()), flags); },
      [](int made) { ::semctl(made, 0, IPC_RMID); });
  SemArgument argument{};
  argument.values = values.data();
  check(::semctl(id, 0, SETALL, argument), "set the values of", what);
  semid_ds set{};
  argument.set = &set;
  check(::semctl(id, 0, IPC_STAT, argument), "look at", what);
  if (set_owner(set.sem_perm, entry.desc())) {
    check(::semctl(id, 0, IPC_SET, argument), "set the owner of", what);
  }
}

}  // namespace

void save_message_queues(DumpContext& dump, std::uint32_t ns_id) {
  msginfo info{};
  const int last = check(::msgctl(0, MSG_INFO, reinterpret_cast<msqid_ds*>(&info)), "count message queues");
  auto image = dump.images.create(image::type::ipcns_msg, ns_id);
  MessageBuffer buffer(static_cast<std::size_t>(read_variables().msg_ctlmax()));
  for (int index = 0; info.msgpool > 0 && index <= last; ++index) {
    msqid_ds queue{};
    const int id = ::msgctl(index, MSG_STAT, &queue);
    if (id >= 0) {
      dump.attempt([&] { save_queue(*dump.users, image, id, queue, buffer); });
    }
  }
  image.finish();
}

void restore_message_queues(const RestoreContext& context, std::uint32_t ns_id) {
  auto reader = context.images.open(image::type::ipcns_msg, ns_id);
  images::ipc_msg_entry entry;
  while (reader && reader->next(entry)) {
    restore_queue(*reader, entry);
  }
}

void save_semaphores(DumpContext& dump, std::uint32_t ns_id) {
  seminfo info{};
  SemArgument argument{};
  argument.info = &info;
  const int last = check(::semctl(0, 0, SEM_INFO, argument), "count semaphore sets");
  auto image = dump.images.create(image::type::ipcns_sem, ns_id);
  for (int index = 0; info.semusz > 0 && index <= last; ++index) {
    semid_ds set{};
    argument.set = &set;
    const int id = ::semctl(index, 0, SEM_STAT, argument);
    if (id >= 0) {
      dump.attempt([&] { save_set(*dump.users, image, id, set); });
    }
  }
  image.finish();
}

void restore_semaphores(const RestoreContext& context, std::uint32_t ns_id) {
  auto reader = context.images.open(image::type::ipcns_sem, ns_id);
  images::ipc_sem_entry entry;
  while (reader && reader->next(entry)) {
    restore_set(*reader, entry);
  }
}

}  // namespace criu::namespaces
