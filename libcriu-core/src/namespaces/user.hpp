// SPDX-License-Identifier: LGPL-2.1-only
// The user namespace of a tree. Images have user and group ids as the tree sees them. A dump stays outside, where it
// may look at everything, and translates; a restore does from inside what is to belong to the tree.
#pragma once

#include <sys/types.h>
#include <userns.pb.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "kernel/procfs.hpp"

namespace criu {
struct DumpContext;
struct RestoreContext;
}  // namespace criu

namespace criu::namespaces {

// Memory for a process that shares ours to run on. Nothing, until it is mapped.
class Stack {
 public:
  Stack() = default;
  ~Stack();
  Stack(Stack&& other) noexcept : at_(std::exchange(other.at_, nullptr)) {}
  Stack& operator=(Stack&& other) noexcept {
    std::swap(at_, other.at_);
    return *this;
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  void map();
  void* top() const;

 private:
  void* at_ = nullptr;
};

class Users {
 public:
  Users() = default;  // ours: nothing is translated, everything is done in this process
  // Of a task that has others than we.
  explicit Users(const procfs::Task&);

  // Whether the tree has any of its own.
  bool own() const { return static_cast<bool>(ns_); }
  int ns() const { return ns_.get(); }
  const images::userns_entry& entry() const { return entry_; }

  // What is one number outside, inside; 0xffffffff: nobody there.
  std::uint32_t user(std::uint32_t outside) const { return own() ? inside(entry_.uid_map(), outside) : outside; }
  std::uint32_t group(std::uint32_t outside) const { return own() ? inside(entry_.gid_map(), outside) : outside; }
  // The other way.
  std::uint32_t user_outside(std::uint32_t id) const { return own() ? outside(entry_.uid_map(), id) : id; }
  std::uint32_t group_outside(std::uint32_t id) const { return own() ? outside(entry_.gid_map(), id) : id; }
  // Of a range of groups, the lowest and the highest that there are on the other side; nothing: none of them.
  using Range = std::pair<std::uint32_t, std::uint32_t>;
  std::optional<Range> groups(Range outside) const;
  std::optional<Range> groups_outside(Range inside) const;
  // Of a message or structure of the kernel that names both.
  template <typename Message>
  void translate(Message& message) const {
    message.set_uid(user(message.uid()));
    message.set_gid(group(message.gid()));
  }
  void translate(procfs::Status&) const;

  // Does it in a process that is root in there, and in all other namespaces where this one is. It has this one's
  // memory and descriptors, so that whatever it makes is here; what it throws is thrown here. For the one who is born
  // in it: `as_sibling`, its children are not this process's but the brothers of it.
  void run(const std::function<void()>& work, bool as_sibling = false) const;

 protected:
  using Map = google::protobuf::RepeatedPtrField<images::uid_gid_extent>;
  static std::uint32_t inside(const Map&, std::uint32_t id);
  static std::uint32_t outside(const Map&, std::uint32_t id);
  void enter() const;

  base::Fd ns_;
  bool ours_ = false;  // made by this program
  images::userns_entry entry_;
  std::vector<gid_t> groups_;  // that cannot be changed inside, as they are outside
  Stack stack_;
};

// Whether it has an id that is none to the tree.
bool has_nobody(const procfs::Status& translated);

// Of this process.
const Users& our_users();

// Which of the root's namespaces belong to others than its users, or to users of their own; nothing: "".
std::string foreign_namespaces(const procfs::Task& root);

void save_users(const DumpContext&, std::uint32_t ns_id);

class RestoredUsers : public Users {
 public:
  // Reads and checks. Before it is known where there is free memory, since some of it is used.
  explicit RestoredUsers(const RestoreContext&);
  // Makes the namespace.
  void make(const RestoreContext&);

 private:
  void check_credentials(const RestoreContext&) const;
};

}  // namespace criu::namespaces
