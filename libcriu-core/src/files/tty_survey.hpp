// SPDX-License-Identifier: LGPL-2.1-only
// The terminals of one dump: which there are, which session each controls, and which have their other end outside.
#pragma once

#include <sys/stat.h>
#include <tty.pb.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "base/fd.hpp"
#include "files/kind.hpp"
#include "files/tty_device.hpp"

namespace criu {

struct DumpContext;

namespace files {

class TtySurvey {
 public:
  struct Met {
    images::tty_info_entry info;
    TtyClass kind;
    std::string what;  // the first descriptor of it
    base::Fd fd;
    struct stat node {};  // of a master: the slave's node
    bool complete = false;
  };

  // The terminal behind a descriptor; what is asked of it is asked when it is met first.
  const Met& meet(Saver&, const Description&);
  // Writes it down, now that all descriptors of all tasks are known. Once for each.
  void complete(Saver&, std::uint32_t id);
  // Whether every session that has a controlling terminal will have it again.
  void check_sessions(Saver&) const;

 private:
  using Usual = std::optional<std::uint32_t>;  // the id that the format has for it
  // Type, device of the file system, number of the pty; and whether it is one that has been hung up.
  using Key = std::tuple<int, std::uint64_t, std::uint32_t, bool>;

  std::uint32_t new_id(const Key&, Usual usual);
  Met look(Saver&, const Description&, Key&, Usual& usual);
  void look_at_master(const Description&, Met&, Key&, Usual& usual);
  void look_at_slave(const Description&, Met&, Key&, Usual& usual);
  void complete_master(Saver&, Met&);
  void complete_slave(Saver&, Met&);
  void complete_current(Saver&, Met&);
  void save_contents(Saver&, Met& master, Met* slave);
  void refuse_outside_user(const Met& master);
  void find_session(const DumpContext&, Met&) const;
  Met* find(std::uint32_t id);

  std::map<Key, std::uint32_t> ids_;
  std::map<std::uint32_t, Met> met_;                       // by id
  std::multimap<std::uint32_t, std::uint32_t> by_number_;  // of the device, but for /dev/tty
  std::set<std::uint32_t> opened_as_current_;              // numbers of terminals that are open as /dev/tty
  std::set<std::uint32_t> taken_;
  std::uint32_t last_extra_ = 0;
  std::uint32_t externals_ = 0;
  // Terminals that anybody but the dump itself has open; filled when it is asked for.
  std::map<std::pair<dev_t, ino_t>, std::pair<pid_t, int>> in_use_;
  bool looked_around_ = false;
};

}  // namespace files
}  // namespace criu
