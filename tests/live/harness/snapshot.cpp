// SPDX-License-Identifier: GPL-2.0-only
#include "snapshot.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>

namespace live {

namespace fs = std::filesystem;

namespace {

std::string proc = "/proc/";  // another one is that of a container

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string link_of(const fs::path& path) {
  std::array<char, 4096> target{};
  const auto size = ::readlink(path.c_str(), target.data(), target.size());
  return size < 0 ? std::string() : std::string(target.data(), static_cast<std::size_t>(size));
}

// Numbers in a directory of /proc, sorted.
std::vector<int> numbers_in(const fs::path& directory) {
  std::vector<int> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const auto name = entry.path().filename().string();
    if (!name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      found.push_back(std::stoi(name));
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

// "pipe:[4711]" → "pipe:#1": which descriptors are the same pipe is kept, its number is not.
class Names {
 public:
  std::string operator()(const std::string& target) {
    static const std::regex numbered("^(pipe|socket):\\[[0-9]+\\]$");
    std::smatch match;
    if (!std::regex_match(target, match, numbered)) {
      return target;
    }
    const auto number = seen_.emplace(target, seen_.size() + 1).first->second;
    return match[1].str() + ":#" + std::to_string(number);
  }

 private:
  std::map<std::string, std::size_t> seen_;
};

// How a call that sleeps for a time goes on after an interruption.
constexpr const char* restart_syscall = "219";

struct Area {
  unsigned long start = 0, end = 0, offset = 0;
  std::string perms, name, flags;
};

// Which advice and locks a mapping has; the other flags follow from its permissions or are the kernel's own business.
std::string told_flags(const std::string& line) {
  static const std::set<std::string> told{"lo", "dc", "dd", "wf", "hg", "nh", "mg", "rr", "sr", "gd", "ht", "gu"};
  std::istringstream words(line.substr(line.find(':') + 1));
  std::string out;
  for (std::string word; words >> word;) {
    if (told.count(word) != 0) {
      out += " " + word;
    }
  }
  return out;
}

bool joins(const Area& a, const Area& b) {
  const bool file = !a.name.empty() && a.name[0] == '/';
  return a.end == b.start && a.perms == b.perms && a.name == b.name && a.flags == b.flags &&
         (!file || a.offset + (a.end - a.start) == b.offset);
}

// The mappings with neighbours joined: where the kernel splits equal ones follows from their history.
std::string maps_of(const fs::path& task) {
  std::vector<Area> areas;
  std::ifstream file(task / "smaps");
  static const std::regex head("^([0-9a-f]+)-([0-9a-f]+) (\\S+) ([0-9a-f]+) \\S+ [0-9]+ *(.*)$");
  std::smatch match;
  for (std::string line; std::getline(file, line);) {
    if (std::regex_match(line, match, head)) {
      areas.push_back({std::stoul(match[1], nullptr, 16),
                       std::stoul(match[2], nullptr, 16),
                       std::stoul(match[4], nullptr, 16),
                       match[3],
                       match[5],
                       {}});
    } else if (line.starts_with("VmFlags:") && !areas.empty()) {
      areas.back().flags = told_flags(line);
    }
  }
  std::vector<Area> joined;
  for (const auto& area : areas) {
    if (!joined.empty() && joins(joined.back(), area)) {
      joined.back().end = area.end;
    } else {
      joined.push_back(area);
    }
  }
  std::ostringstream out;
  for (const auto& area : joined) {
    out << std::hex << area.start << "-" << area.end << " " << area.perms << " " << area.offset << area.flags << " "
        << area.name << "\n";
  }
  return out.str();
}

// Lines of fdinfo without what the kernel numbers anew and what a clock moves.
std::string fdinfo_of(const fs::path& path) {
  static const std::regex dropped(
      "^(mnt_id|ino|eventfd-id|it_value|ticks|clockid-raw|map_id|memlock|Sq(Thread|ThreadCpu|TotalTime|WorkTime)):.*");
  static const std::regex inodes("( +ino:[0-9a-f]+)|( +sdev:[0-9a-f]+)|( +fhandle-.*)|(\t[0-9]+: )");
  static const std::regex mounts(" mnt_id:[0-9a-f]+");
  std::ifstream file(path);
  std::string out;
  // The targets of an epoll come in the order of their addresses in the kernel, watches and the locks of
  // several owners in that of their making.
  std::set<std::string> targets;
  for (std::string line; std::getline(file, line);) {
    // Mounts of a container are others afterwards, with other numbers.
    line = proc == "/proc/" ? line : std::regex_replace(line, mounts, "");
    if (line.starts_with("tfd:") || line.starts_with("inotify ") || line.starts_with("fanotify ") ||
        line.starts_with("lock:")) {
      targets.insert(std::regex_replace(line, inodes, ""));
    } else if (!std::regex_match(line, dropped)) {
      out += " " + line;
    }
  }
  for (const auto& target : targets) {
    out += " " + target;
  }
  std::replace(out.begin(), out.end(), '\t', ' ');
  return out;
}

std::string descriptors_of(const fs::path& task, Names& names) {
  std::string out;
  for (const int fd : numbers_in(task / "fd")) {
    const auto number = std::to_string(fd);
    out += number + " → " + names(link_of(task / "fd" / number)) + fdinfo_of(task / "fdinfo" / number) + "\n";
  }
  return out;
}

// Of the dead only what their parent will ask for.
std::string status_of(const fs::path& task, bool dead) {
  static const std::set<std::string> kept_of_dead{"Name", "Tgid", "Pid", "PPid", "NSpid", "NSpgid", "NSsid"};
  static const std::set<std::string> kept{
      "Name",   "Umask",  "Tgid",   "Pid",    "PPid",   "Uid",        "Gid",     "Groups",          "NStgid",
      "NSpid",  "NSpgid", "NSsid",  "SigPnd", "ShdPnd", "SigBlk",     "SigIgn",  "SigCgt",          "CapInh",
      "CapPrm", "CapEff", "CapBnd", "CapAmb", "VmLck",  "NoNewPrivs", "Seccomp", "Seccomp_filters", "THP_enabled"};
  std::ifstream file(task / "status");
  std::string out;
  for (std::string line; std::getline(file, line);) {
    const auto name = line.substr(0, line.find(':'));
    if ((dead ? kept_of_dead : kept).count(name) != 0) {
      out += line + "\n";
    }
    // Whether a task runs or sleeps at this moment says nothing; whether it is stopped or dead does.
    if (name == "State" && line.find_first_of("TZ") != std::string::npos) {
      out += line + "\n";
    }
  }
  return out;
}

// The fields of /proc/PID/stat that a checkpoint keeps, by their number in proc(5).
std::string stat_of(const fs::path& task, bool dead) {
  static const std::set<std::size_t> kept_of_dead{4, 5, 6, 38, 52};
  static const std::map<std::size_t, const char*> kept{
      {4, "ppid"},         {5, "pgrp"},       {6, "session"},     {7, "tty"},         {19, "nice"},
      {20, "threads"},     {26, "startcode"}, {27, "endcode"},    {28, "startstack"}, {38, "exit_signal"},
      {40, "rt_priority"}, {41, "policy"},    {45, "start_data"}, {46, "end_data"},   {47, "start_brk"},
      {48, "arg_start"},   {49, "arg_end"},   {50, "env_start"},  {51, "env_end"},    {52, "exit_code"}};
  const auto text = text_of(task / "stat");
  const auto close = text.rfind(')');
  if (close == std::string::npos) {
    return {};
  }
  std::istringstream words(text.substr(close + 1));
  std::string out;
  std::size_t field = 3;
  for (std::string word; words >> word; ++field) {
    // The exit code of the living says which stop was reported last.
    const bool wanted = dead ? kept_of_dead.count(field) != 0 : field != 52;
    if (const auto found = kept.find(field); wanted && found != kept.end()) {
      out += std::string(found->second) + " " + word + "\n";
    }
  }
  return out;
}

std::string timers_of(const fs::path& task) {
  std::ifstream file(task / "timers");
  std::string out;
  for (std::string line; std::getline(file, line);) {
    out += line + "\n";
  }
  return out;
}

// Pairs of words, in numbers.
std::string auxv_of(const fs::path& task) {
  const auto raw = text_of(task / "auxv");
  std::ostringstream out;
  std::array<std::uint64_t, 2> pair{};
  for (std::size_t at = 0; at + sizeof pair <= raw.size(); at += sizeof pair) {
    std::memcpy(pair.data(), raw.data() + at, sizeof pair);
    out << pair[0] << " " << std::hex << pair[1] << std::dec << "\n";
  }
  return out.str();
}

bool is_dead(const fs::path& task) {
  const auto text = text_of(task / "stat");
  const auto close = text.rfind(')');
  return close == std::string::npos || text.substr(close, 3) == ") Z";
}

// "12" → "#1" by first appearance.
class Numbers {
 public:
  std::string operator()(const std::string& number) {
    return "#" + std::to_string(seen_.emplace(number, seen_.size() + 1).first->second);
  }

 private:
  std::map<std::string, std::size_t> seen_;
};

// One line a mount, by their places. Which are of one file system or one peer group is kept, their numbers are not.
std::string mounts_of(const fs::path& task) {
  struct Mount {
    std::string point, id, parent, dev, rest;
  };
  std::vector<Mount> mounts;
  std::ifstream file(task / "mountinfo");
  for (std::string line; std::getline(file, line);) {
    Mount mount;
    std::string root;
    std::istringstream words(line);
    words >> mount.id >> mount.parent >> mount.dev >> root >> mount.point;
    std::getline(words, mount.rest);
    mount.rest = root + mount.rest;
    mounts.push_back(mount);
  }
  // Of several at one place the lower one first: the kernel's order is that in which they were made.
  const auto depth = [&mounts](const Mount& mount) {
    int steps = 0;
    for (auto id = mount.parent; steps <= static_cast<int>(mounts.size()); ++steps) {
      const auto parent =
          std::find_if(mounts.begin(), mounts.end(), [&](const Mount& other) { return other.id == id; });
      if (parent == mounts.end()) {
        break;
      }
      id = parent->parent;
    }
    return steps;
  };
  std::map<std::string, int> depths;
  for (const auto& mount : mounts) {
    depths[mount.id] = depth(mount);
  }
  std::stable_sort(mounts.begin(), mounts.end(), [&](const Mount& a, const Mount& b) {
    return std::pair(a.point, depths[a.id]) < std::pair(b.point, depths[b.id]);
  });
  Numbers ids, devices, groups;
  static const std::regex group("(shared|master):([0-9]+)");
  std::string out;
  for (const auto& mount : mounts) {
    auto line = mount.point + " mount " + ids(mount.id) + " on " + ids(mount.parent) + ", device " +
                devices(mount.dev) + ", " + mount.rest;
    std::string text;
    std::smatch match;
    for (; std::regex_search(line, match, group); line = match.suffix()) {
      text += match.prefix().str() + match[1].str() + ":" + groups(match[2]);
    }
    out += text + line + "\n";
  }
  return out;
}

void add_thread(Snapshot& snapshot, const std::string& key, const fs::path& task) {
  const bool dead = is_dead(task);
  snapshot[key + ": status"] = status_of(task, dead);
  snapshot[key + ": stat"] = stat_of(task, dead);
  if (!dead) {
    for (const char* file : {"comm", "timerslack_ns", "personality", "cgroup"}) {
      snapshot[key + ": " + file] = text_of(task / file);
    }
  }
}

}  // namespace

void look_at_proc(const std::string& mount_point) { proc = mount_point + "/"; }

namespace {

std::vector<pid_t> tree_in(const std::string& where, pid_t root) {
  std::vector<pid_t> all{root};
  for (std::size_t at = 0; at < all.size(); ++at) {
    const fs::path tasks = where + std::to_string(all[at]) + "/task";
    std::set<pid_t> children;
    for (const int tid : numbers_in(tasks)) {
      std::istringstream words(text_of(tasks / std::to_string(tid) / "children"));
      for (pid_t child = 0; words >> child;) {
        children.insert(child);
      }
    }
    all.insert(all.end(), children.begin(), children.end());
  }
  return all;
}

}  // namespace

std::vector<pid_t> tree_of(pid_t root) { return tree_in("/proc/", root); }

Sleepers sleepers_of_tree(pid_t root) {
  Sleepers found;
  for (const pid_t pid : tree_in(proc, root)) {
    const fs::path tasks = proc + std::to_string(pid) + "/task";
    for (const int tid : numbers_in(tasks)) {
      const auto task = tasks / std::to_string(tid);
      const auto stat = text_of(task / "stat");
      const auto call = text_of(task / "syscall");
      const auto close = stat.rfind(')');
      const auto state = close != std::string::npos && close + 2 < stat.size() ? stat[close + 2] : '?';
      if (state == 'S') {
        found[tid] = call.substr(0, call.find(' '));
      } else if (state == 'T') {
        found[tid] = "stopped";
      }
    }
  }
  return found;
}

bool all_asleep_again(const Sleepers& before, pid_t root) {
  const auto now = sleepers_of_tree(root);
  return std::all_of(before.begin(), before.end(), [&now](const auto& was) {
    const auto is = now.find(was.first);
    return is != now.end() && (is->second == was.second || is->second == restart_syscall);
  });
}

Snapshot snapshot_of_tree(pid_t root) {
  Snapshot snapshot;
  Names names;
  const auto own = proc + std::to_string(root);
  if (link_of(own + "/ns/mnt") != link_of("/proc/self/ns/mnt")) {
    snapshot["tree: mounts"] = mounts_of(own);
  }
  for (const pid_t pid : tree_in(proc, root)) {
    const fs::path task = proc + std::to_string(pid);
    const auto key = "task " + std::to_string(pid);
    add_thread(snapshot, key, task);
    if (is_dead(task)) {
      continue;
    }
    snapshot[key + ": maps"] = maps_of(task);
    snapshot[key + ": fd"] = descriptors_of(task, names);
    snapshot[key + ": timers"] = timers_of(task);
    snapshot[key + ": auxv"] = auxv_of(task);
    for (const char* file : {"limits", "oom_score_adj", "loginuid", "cmdline", "environ", "coredump_filter"}) {
      snapshot[key + ": " + file] = text_of(task / file);
    }
    for (const char* link : {"exe", "cwd", "root"}) {
      snapshot[key + ": " + link] = link_of(task / link);
    }
    for (const int tid : numbers_in(task / "task")) {
      if (tid != pid) {
        add_thread(snapshot, "thread " + std::to_string(tid), task / "task" / std::to_string(tid));
      }
    }
  }
  return snapshot;
}

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    // The terminal of who reads this is not for victims to write to.
    std::replace_if(
        line.begin(), line.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' && c != '\t'; }, ' ');
    lines.push_back(line);
  }
  return lines;
}

void compare_part(const std::string& key, const std::string& was, const std::string& is,
                  std::vector<std::string>& found) {
  constexpr std::size_t longest_line = 300;
  const auto before = lines_of(was);
  const auto after = lines_of(is);
  for (const auto& line : before) {
    if (std::find(after.begin(), after.end(), line) == after.end()) {
      found.push_back(key + ": was  " + line.substr(0, longest_line));
    }
  }
  for (const auto& line : after) {
    if (std::find(before.begin(), before.end(), line) == before.end()) {
      found.push_back(key + ": is   " + line.substr(0, longest_line));
    }
  }
}

}  // namespace

std::vector<std::string> differences(const Snapshot& before, const Snapshot& after,
                                     const std::vector<std::string>& ignore) {
  std::set<std::string> keys;
  for (const auto* snapshot : {&before, &after}) {
    for (const auto& [key, text] : *snapshot) {
      keys.insert(key);
    }
  }
  std::vector<std::string> found;
  for (const auto& key : keys) {
    const auto part = key.substr(key.find(": ") + 2);
    if (std::find(ignore.begin(), ignore.end(), part) != ignore.end()) {
      continue;
    }
    const auto was = before.find(key);
    const auto is = after.find(key);
    if (was == before.end() || is == after.end()) {
      found.push_back(key + (was == before.end() ? ": came" : ": went") + " with the checkpoint");
    } else if (was->second != is->second) {
      compare_part(key, was->second, is->second, found);
    }
  }
  return found;
}

}  // namespace live
