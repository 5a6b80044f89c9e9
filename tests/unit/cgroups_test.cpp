// SPDX-License-Identifier: GPL-2.0-only
#include "kernel/cgroups.hpp"

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "namespaces/cgroup_props.hpp"

using namespace criu;
using Names = std::vector<std::string>;

TEST_CASE("/proc/PID/cgroup, sorted by controllers") {
  const auto all = kernel::parse_memberships("9:name=systemd:/a:b\n2:cpu,cpuacct:/\n0::/x y\n");
  REQUIRE(all.size() == 3);
  CHECK((all[0].controllers.empty() && all[0].path == "/x y"));
  CHECK((all[1].controllers == "cpu,cpuacct" && all[1].path == "/"));
  CHECK((all[2].controllers == "name=systemd" && all[2].path == "/a:b"));
  CHECK(kernel::parse_memberships("").empty());
  CHECK_THROWS_AS(kernel::parse_memberships("nothing"), base::Error);
  CHECK_THROWS_AS(kernel::parse_memberships("1:one"), base::Error);
}

TEST_CASE("controllers of one hierarchy") {
  CHECK(kernel::split_controllers("cpu,cpuacct") == Names{"cpu", "cpuacct"});
  CHECK(kernel::split_controllers("") == Names{""});
}

TEST_CASE("properties that are saved") {
  namespaces::CgroupProps props;
  CHECK(props.of_v1({"pids"}) ==
        Names{"pids.max", "cgroup.clone_children", "notify_on_release", "cgroup.procs", "tasks"});
  CHECK(props.of_v2({"pids"}).back() == "pids.max");
  CHECK(props.of_v2({}).front() == "cgroup.subtree_control");
  // A limit has to be there before that of memory and swap together.
  const auto memory = props.of_v1({"memory"});
  CHECK((memory[0] == "memory.limit_in_bytes" && memory[1] == "memory.memsw.limit_in_bytes"));
}

TEST_CASE("properties as a user wants them") {
  namespaces::CgroupProps props;
  props.apply(
      "\"pids\":\n - \"strategy\": \"merge\"\n - \"properties\": [ \"pids.a\", \"pids.b\" ]\n"
      "\"new\":\n - \"strategy\": \"replace\"\n - \"properties\": []\n"
      "\"cpu\":\n- \"strategy\": \"replace\"\n- \"properties\": [\"cpu.one\"]");
  CHECK(props.of_v1({"pids", "new", "cpu"}) == Names{"pids.max", "pids.a", "pids.b", "cpu.one", "cgroup.clone_children",
                                                     "notify_on_release", "cgroup.procs", "tasks"});
  CHECK(props.of_v2({"cpu"}).back() == "cpu.one");
}

TEST_CASE("properties that nobody can understand are named with their line") {
  using Catch::Contains;
  namespaces::CgroupProps props;
  CHECK_THROWS_WITH(props.apply("pids:\n"), Contains("line 1"));
  CHECK_THROWS_WITH(props.apply("\"pids\":\n - \"strategy\": \"none\"\n"), Contains("merge"));
  CHECK_THROWS_WITH(props.apply("\"pids\":\n - \"strategy\": \"merge\"\n - \"properties\": [\"a\" \"b\"]"),
                    Contains("line 3"));
  CHECK_THROWS_WITH(props.apply("\"pids\":\n - \"properties\": []\n"), Contains("strategy"));
  CHECK_THROWS_WITH(props.apply("\"pids\":\n - \"strategy\": \"merge\"\n"), Contains("- is wanted"));
  CHECK_THROWS_WITH(props.apply("\"pid\ns\":"), Contains("quotes"));
  CHECK_THROWS_AS(props.apply_file("/nowhere"), base::Error);
}
