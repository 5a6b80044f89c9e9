// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/cgroup_props.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "base/error.hpp"

namespace criu::namespaces {

using base::Error;

namespace {

constexpr const char* every_group = "";  // what all groups have, whatever their controllers are

// The grammar of --cgroup-props, a small part of YAML.
class Stanzas {
 public:
  explicit Stanzas(std::string_view text) : whole_(text), rest_(text) {}

  bool done() {
    while (!rest_.empty() && (rest_.front() == '\n' || rest_.front() == ' ' || rest_.front() == '\t')) {
      rest_.remove_prefix(1);
    }
    return rest_.empty();
  }
  void expect(char wanted) {
    blanks();
    if (rest_.empty() || rest_.front() != wanted) {
      stumble(wanted == '\n' ? "the end of the line" : std::string(1, wanted));
    }
    rest_.remove_prefix(1);
  }
  bool accept(char wanted) {
    blanks();
    if (rest_.empty() || rest_.front() != wanted) {
      return false;
    }
    rest_.remove_prefix(1);
    return true;
  }
  std::string word() {
    expect('"');
    const auto text = rest_.substr(0, rest_.find('"'));
    if (text.size() == rest_.size() || text.empty() || text.find('\n') != text.npos) {
      stumble("a name in double quotes");
    }
    rest_.remove_prefix(text.size() + 1);
    return std::string(text);
  }
  // - "KEY":
  void key(const std::string& wanted) {
    expect('-');
    if (word() != wanted) {
      stumble("\"" + wanted + "\" before this");
    }
    expect(':');
  }
  void end_of_line(bool may_be_last) {
    blanks();
    if (!may_be_last || !rest_.empty()) {
      expect('\n');
    }
  }
  [[noreturn]] void stumble(const std::string& wanted) const {
    const auto line = rest_.substr(0, rest_.find('\n'));
    const auto before = std::count(whole_.begin(), whole_.begin() + (whole_.size() - rest_.size()), '\n');
    throw Error("cannot understand the properties of control groups",
                "line " + std::to_string(before + 1) + ", at '" + std::string(line) + "'", 0, wanted + " is wanted");
  }

 private:
  void blanks() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t')) {
      rest_.remove_prefix(1);
    }
  }
  std::string_view whole_, rest_;
};

std::vector<std::string> collect(const std::map<std::string, std::vector<std::string>, std::less<>>& lists,
                                 const std::vector<std::string>& controllers) {
  std::vector<std::string> all;
  for (const auto& controller : controllers) {
    if (const auto list = lists.find(controller); list != lists.end()) {
      all.insert(all.end(), list->second.begin(), list->second.end());
    }
  }
  return all;
}

}  // namespace

CgroupProps::CgroupProps()
    : v1_{{every_group, {"cgroup.clone_children", "notify_on_release", "cgroup.procs", "tasks"}},
          {"cpu", {"cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.rt_period_us", "cpu.rt_runtime_us"}},
          {"memory",
           {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness", "memory.soft_limit_in_bytes",
            "memory.move_charge_at_immigrate", "memory.oom_control", "memory.use_hierarchy",
            "memory.kmem.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"}},
          {"cpuset",
           {"cpuset.cpus", "cpuset.mems", "cpuset.memory_migrate", "cpuset.cpu_exclusive", "cpuset.mem_exclusive",
            "cpuset.mem_hardwall", "cpuset.memory_spread_page", "cpuset.memory_spread_slab",
            "cpuset.sched_load_balance", "cpuset.sched_relax_domain_level"}},
          {"blkio", {"blkio.weight"}},
          {"freezer", {"freezer.state"}},
          {"net_cls", {"net_cls.classid"}},
          {"net_prio", {"net_prio.ifpriomap"}},
          {"pids", {"pids.max"}},
          {"devices", {"devices.list"}}},
      v2_{{every_group,
           {"cgroup.subtree_control", "cgroup.max.descendants", "cgroup.max.depth", "cgroup.freeze", "cgroup.type"}},
          // A weight can be set only where the group is not idle.
          {"cpu", {"cpu.idle", "cpu.weight", "cpu.max", "cpu.max.burst", "cpu.uclamp.min", "cpu.uclamp.max"}},
          {"memory",
           {"memory.min", "memory.low", "memory.high", "memory.max", "memory.swap.high", "memory.swap.max",
            "memory.zswap.max", "memory.zswap.writeback", "memory.oom.group"}},
          {"cpuset", {"cpuset.cpus", "cpuset.mems", "cpuset.cpus.exclusive", "cpuset.cpus.partition"}},
          {"io", {"io.weight", "io.bfq.weight", "io.max", "io.latency", "io.prio.class"}},
          {"pids", {"pids.max"}},
          {"hugetlb", {"hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.1GB.max", "hugetlb.1GB.rsvd.max"}},
          {"rdma", {"rdma.max"}},
          {"misc", {"misc.max"}}} {}

void CgroupProps::apply(std::string_view text) {
  Stanzas stanzas(text);
  while (!stanzas.done()) {
    const auto controller = stanzas.word();
    stanzas.expect(':');
    stanzas.end_of_line(false);
    stanzas.key("strategy");
    const auto strategy = stanzas.word();
    if (strategy != "merge" && strategy != "replace") {
      stanzas.stumble("as strategy \"merge\" or \"replace\"");
    }
    stanzas.end_of_line(false);
    stanzas.key("properties");
    stanzas.expect('[');
    std::vector<std::string> names;
    if (!stanzas.accept(']')) {
      do {
        names.push_back(stanzas.word());
      } while (stanzas.accept(','));
      stanzas.expect(']');
    }
    stanzas.end_of_line(true);
    for (auto* lists : {&v1_, &v2_}) {
      auto& list = (*lists)[controller];
      if (strategy == "replace") {
        list.clear();
      }
      list.insert(list.end(), names.begin(), names.end());
    }
  }
}

void CgroupProps::apply_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    throw Error("open the properties of control groups", path, errno);
  }
  apply(std::string(std::istreambuf_iterator<char>(file), {}));
}

std::vector<std::string> CgroupProps::of_v1(const std::vector<std::string>& controllers) const {
  auto all = collect(v1_, controllers);
  const auto& common = v1_.find(every_group)->second;
  all.insert(all.end(), common.begin(), common.end());
  return all;
}

std::vector<std::string> CgroupProps::of_v2(const std::vector<std::string>& controllers) const {
  auto all = v2_.find(every_group)->second;
  const auto more = collect(v2_, controllers);
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

}  // namespace criu::namespaces
