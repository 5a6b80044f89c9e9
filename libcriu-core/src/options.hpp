// SPDX-License-Identifier: LGPL-2.1-only
// What a request asks for: the same set, whether it came from a command line, a configuration file or the C API.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace criu {

// What becomes of the tree in the end.
enum class FinalState { killed, stopped, running };

enum class FileValidation { size, build_id };

struct Options {
  pid_t tree = 0;                               // -t
  std::string images_dir = ".";                 // -D
  std::string work_dir;                         // -W; empty: the image directory
  std::string log_file;                         // -o; empty: stderr
  int verbosity = 2;                            // -v
  FinalState final_state = FinalState::killed;  // -s, -R (a restore knows stopped and running)
  bool detach = false;                          // -d
  bool sibling = false;                         // -S
  std::string pidfile;
  bool shell_job = false;  // -j
  bool link_remap = false;
  std::uint64_t ghost_limit = 1 << 20;  // bytes, allocated
  bool file_locks = false;
  unsigned timeout = 10;  // seconds for freezing; 0: none
  std::vector<std::string> exec_cmd;
  bool display_stats = false;
  std::vector<std::string> action_scripts;
  int status_fd = -1;
  FileValidation file_validation = FileValidation::build_id;
  bool skip_file_rwx_check = false;
  bool evasive_devices = false;
};

}  // namespace criu
