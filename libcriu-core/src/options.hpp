// SPDX-License-Identifier: LGPL-2.1-only
// What a request asks for: the same set, whether it came from a command line, a configuration file or the C API.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace criu {

// What becomes of the tree in the end.
enum class FinalState { killed, stopped, running };

enum class FileValidation { size, build_id };

// How connections are kept silent between dump and restore; the numbers are the inventory's.
enum class NetworkLockMethod : std::uint32_t { iptables = 0, nftables = 1, skip = 2, any = 3 };

// What a restore does with control groups.
enum class CgroupMode {
  ignore,  // nothing: tasks are where the restoring program is
  none,    // they are put where they were; the groups must be there
  props,   // and get the properties that they had
  soft,    // groups that are missing are made, with their properties
  full,    // and those that are there get theirs, too
  strict,  // none may be there
};

// What a person can ask for; a mask, for an option can matter to several.
enum Command : unsigned {
  dump_command = 1,
  pre_dump_command = 2,
  restore_command = 4,
  check_command = 8,
  page_server_command = 16,
  lazy_pages_command = 32,
  service_command = 64,
  cpuinfo_command = 128,
  dedup_command = 256,
  every_command = 511,
};

class EventListener;

struct Options {
  pid_t tree = 0;                               // -t
  std::string images_dir = ".";                 // -D
  std::string previous_images;                  // relative to those; empty: there are none
  bool track_memory = false;                    // for the next dump, which copies all the same
  std::string work_dir;                         // -W; empty: the image directory
  std::string log_file;                         // -o; empty: stderr; "-": stdout
  bool log_pid = false;                         // restored tasks log to files of their own
  int verbosity = 2;                            // -v
  FinalState final_state = FinalState::killed;  // -s, -R (a restore knows stopped and running)
  bool detach = false;                          // -d
  bool sibling = false;                         // -S
  std::string pidfile;
  std::string root;                   // -r: what becomes the root of a restored mount namespace; empty: our own
  std::vector<std::string> skip_mnt;  // mount points that are left out
  bool auto_mounts = false;           // mounts that are outside of the tree as well are external,
  bool external_sharing = false;      // also those that share what is mounted on them with the outside,
  bool external_masters = false;      // or hear of it from there
  std::set<std::string> enable_fs;    // types of file systems that can be mounted anew; "all"
  bool shell_job = false;             // -j
  bool orphan_terminals = false;      // of the RPC: masters of ptys that were outside of the tree go to the listener
  bool link_remap = false;
  std::uint64_t ghost_limit = 1 << 20;  // bytes, allocated
  bool ghost_fiemap = true;
  bool file_locks = false;
  unsigned timeout = 10;    // seconds for freezing; 0: none
  bool exec_after = false;  // --exec-cmd; the words are the caller's
  std::vector<std::string> exec_cmd;
  bool display_stats = false;
  std::vector<std::string> action_scripts;
  std::shared_ptr<EventListener> listener;  // hears of what the scripts are run for, before them
  std::string address;                      // of the service; empty: the usual one
  int status_fd = -1;
  FileValidation file_validation = FileValidation::build_id;
  bool skip_file_rwx_check = false;
  bool evasive_devices = false;
  bool affinity = false;
  bool weak_sysctls = false;
  bool unprivileged = false;
  bool deprecated = false;
  std::set<std::string> external;                        // resources that are not the tree's own, as they were given
  std::vector<std::pair<std::string, int>> inherit_fds;  // what the caller of a restore gives in their place
  bool ext_unix_any = false;                             // -x: peers of UNIX sockets may be outside of the tree,
  std::set<std::uint32_t> ext_unix_sk;                   // or only these
  std::uint32_t rpc_socket = 0;  // the one that this is asked over; whose peer may be the tree's
  bool skip_in_flight = false;
  bool tcp_established = false;
  bool tcp_close = false;
  bool empty_net = false;  // --empty-ns net
  std::string join_net;    // --join-ns net:…: the path of a network namespace to restore into
  NetworkLockMethod network_lock = NetworkLockMethod::any;

  CgroupMode manage_cgroups = CgroupMode::soft;
  std::optional<std::string> cgroup_root;           // of all controllers that
  std::map<std::string, std::string> cgroup_roots;  // do not have one of their own
  std::string cgroup_props, cgroup_props_file;
  std::vector<std::string> cgroup_controllers;  // those that are looked at; none: all
  std::string cgroup_yard;                      // where they are mounted; empty: that does not matter
  std::string freeze_cgroup;

  bool check_extra = false;
  bool check_experimental = false;
  std::string check_feature;

  // Options given whose feature this version has not got yet. They are refused when a command starts that they would
  // change, not when they are read: a configuration file serves all commands.
  std::set<std::string> not_yet;

  bool force_irmap = false;                   // paths of watched files are found by scanning,
  std::vector<std::string> irmap_scan_paths;  // here, too
  std::string libdir;                         // where plugins are; empty: where the environment or the build says
};

// The directory that relative names of results (pid file, statistics, log) start from.
inline const std::string& work_dir(const Options& options) {
  return options.work_dir.empty() ? options.images_dir : options.work_dir;
}

}  // namespace criu
