// SPDX-License-Identifier: LGPL-2.1-only
// The terminals of a restored tree. All of them are made by the master, before the first task: the kernel numbers ptys
// as they are opened, a session can be given its terminal only before it has members, and a descriptor of /dev/tty is
// opened by who has that terminal for its own.
#pragma once

#include <sys/types.h>
#include <tty.pb.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "files/tty_queue.hpp"

namespace criu {

namespace images {
class file_entry;
}
struct Checkpoint;
struct RestoreContext;
struct TaskImage;

namespace files {

// The foreground group of each terminal that a task of the tree has to make again, though no task belongs to it any
// more: the leader of the terminal's session, and the group.
std::vector<std::pair<const TaskImage*, pid_t>> foreground_groups(const Checkpoint&);

class Terminals {
 public:
  Terminals() = default;
  explicit Terminals(const RestoreContext&);

  // Inside a task: the descriptions of one terminal.
  std::vector<base::Fd> open(const RestoreContext&, std::span<const images::file_entry* const>) const;
  // Gives a session that was just made its controlling terminal, and later its foreground group.
  void take_control(const TaskImage& leader) const;
  void set_foreground(const TaskImage& leader) const;

  // In the master, when nothing else can fail: terminals from outside get the tree's settings, and all are let go.
  void hand_over(const RestoreContext&);

 private:
  using Info = images::tty_info_entry;
  struct Pty {
    const Info* master = nullptr;
    const Info* slave = nullptr;
    base::Fd fd;  // the master; who asks for the restore gets it when there is no entry of one
    std::string what;
    const Info& any() const { return master != nullptr ? *master : *slave; }
  };
  struct Control {
    int fd;
    bool steal;  // from the session that this process is in
    pid_t foreground;
    std::string what;
  };

  void sort(const RestoreContext&);
  void make_hung_up(const RestoreContext&, const Info&);
  void note_orphan(const RestoreContext&, const Info&);
  void make_ptys(const RestoreContext&);
  void give_away(const RestoreContext&);
  void apply(const RestoreContext&, Pty&);
  void fill(const RestoreContext&, Pty&);
  void find_outside(const RestoreContext&, const Info&);
  void open_current(const RestoreContext&, const Info&);
  void note_controls(const RestoreContext&);
  // How a terminal is reached by its id: the master of its pty, or itself. -1: it is not there.
  int reach(std::uint32_t id) const;
  const std::vector<const images::file_entry*>& files_of(std::uint32_t id) const;
  std::string path_of(const RestoreContext&, std::uint32_t id) const;
  base::Fd open_slave(const RestoreContext&, int master, const images::file_entry&) const;

  std::map<std::uint32_t, std::vector<const images::file_entry*>> files_;  // by id of the terminal
  std::map<std::uint32_t, Pty> ptys_;                                      // by half the id
  std::map<std::uint32_t, base::Fd> outside_;                              // by id: not made here
  std::map<std::uint32_t, base::Fd> prepared_;                             // by file: ready to be had
  std::map<std::uint32_t, images::tty_data_entry> data_;                   // by id
  std::map<pid_t, Control> controls_;                                      // by session
  base::Fd of_caller_;
};

}  // namespace files
}  // namespace criu
