// SPDX-License-Identifier: GPL-2.0-only
#include <unistd.h>

#include <catch2/catch.hpp>
#include <map>
#include <set>

#include "options_table.hpp"

using namespace criu;
using Catch::Matchers::Contains;
using Catch::Matchers::Equals;

namespace {

Options with(std::initializer_list<std::pair<const char*, const char*>> given) {
  Options options;
  for (const auto& [name, value] : given) {
    set_option(options, name, value);
  }
  return options;
}

std::string refusal(const Options& options, Command command) {
  try {
    validate(options, command);
  } catch (const base::Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("the table holds every option once, and a letter means one thing") {
  std::set<std::string> names;
  std::map<char, int> letters;
  for (const auto& option : option_table()) {
    CHECK(names.insert(option.name).second);
    CHECK((option.takes == Takes::nothing) == (option.value_name == nullptr));
    if (option.letter != 0) {
      ++letters[option.letter];
    }
  }
  // -d is both --restore-detached and --daemon, which share what they set.
  CHECK(letters.extract('d').mapped() == 2);
  for (const auto& [letter, times] : letters) {
    INFO(letter);
    CHECK(times == 1);
  }
  CHECK(std::size(option_table()) == 87);  // those of CRIU 4.2, and --pidns
}

TEST_CASE("the --no- forms are those of CRIU 4.2, and of --affinity") {
  std::set<std::string> negatable;
  for (const auto& option : option_table()) {
    if (option.negatable) {
      negatable.insert(option.name);
    }
  }
  CHECK(negatable ==
        std::set<std::string>{"restore-detached",  "restore-sibling", "daemon",        "tcp-established",
                              "skip-in-flight",    "tcp-close",       "log-pid",       "evasive-devices",
                              "link-remap",        "shell-job",       "file-locks",    "page-server",
                              "track-mem",         "auto-dedup",      "force-irmap",   "extra",
                              "experimental",      "deprecated",      "display-stats", "affinity",
                              "weak-sysctls",      "stream",          "tls",           "skip-file-rwx-check",
                              "mntns-compat-mode", "unprivileged",    "ghost-fiemap",  "allow-uprobes"});
}

TEST_CASE("names may be cut as long as one is meant") {
  CHECK(with({{"shell", nullptr}}).shell_job);
  CHECK_FALSE(with({{"shell-job", nullptr}, {"no-shell-j", nullptr}}).shell_job);
  CHECK(with({{"tree", "7"}}).tree == 7);
  Options options;
  CHECK_THROWS_AS(set_option(options, "leave", nullptr), UsageError);
  CHECK_THROWS_WITH(set_option(options, "leave", nullptr),
                    Contains("'--leave' is ambiguous") && Contains("'--leave-running'"));
  CHECK_THROWS_WITH(set_option(options, "bogus", nullptr), Equals("unrecognized option '--bogus'"));
  CHECK_THROWS_WITH(set_option(options, "", nullptr), Equals("unrecognized option '--'"));
  CHECK_THROWS_WITH(set_option(options, "tree", nullptr), Equals("option '--tree' requires an argument"));
  CHECK_THROWS_WITH(set_option(options, "no-shell-job", "x"),
                    Equals("option '--no-shell-job' doesn't allow an argument"));
}

TEST_CASE("verbosity counts, and a number sets") {
  CHECK(Options{}.verbosity == 2);
  CHECK(with({{"verbosity", nullptr}}).verbosity == 3);
  CHECK(with({{"verbosity", "vv"}}).verbosity == 5);
  CHECK(with({{"verbosity", "4"}, {"verbosity", nullptr}}).verbosity == 5);
  CHECK(with({{"verbosity", "0"}}).verbosity == 0);
  CHECK(with({{"verbosity", "erbosity=0"}}).verbosity == 0);
}

TEST_CASE("numbers are whole, in range, and alone") {
  Options options;
  for (const char* pid : {"0", "-1", "x", "7x", "", "99999999999"}) {
    CHECK_THROWS_WITH(set_option(options, "tree", pid, "-t"),
                      Equals(std::string("invalid argument for -t: ") + pid) || Equals("invalid argument for -t"));
  }
  CHECK_THROWS_WITH(set_option(options, "port", "0"), Equals("invalid argument for --port: 0"));
  CHECK_THROWS_AS(set_option(options, "timeout", "-1"), base::Error);
  CHECK(with({{"timeout", "0"}}).timeout == 0);
}

TEST_CASE("sizes know K, M and G") {
  CHECK(Options{}.ghost_limit == 1048576);
  CHECK(with({{"ghost-limit", "7"}}).ghost_limit == 7);
  CHECK(with({{"ghost-limit", "7K"}}).ghost_limit == 7 * 1024);
  CHECK(with({{"ghost-limit", "2M"}}).ghost_limit == 2 * 1048576);
  CHECK(with({{"ghost-limit", "3GB"}}).ghost_limit == std::uint64_t{3} << 30);
  Options options;
  CHECK_THROWS_AS(set_option(options, "ghost-limit", "lots"), base::Error);
  CHECK_THROWS_AS(set_option(options, "ghost-limit", "99999999999999999G"), base::Error);
}

TEST_CASE("the last of two that contradict each other wins") {
  CHECK(with({{"leave-running", nullptr}, {"leave-stopped", nullptr}}).final_state == FinalState::stopped);
  CHECK(with({{"leave-stopped", nullptr}, {"leave-running", nullptr}}).final_state == FinalState::running);
  CHECK(with({{"daemon", nullptr}}).detach);
  CHECK_FALSE(with({{"restore-detached", nullptr}, {"no-daemon", nullptr}}).detach);
  CHECK_FALSE(with({{"no-ghost-fiemap", nullptr}}).ghost_fiemap);
}

TEST_CASE("what is not there yet is refused by name, all of it, by the commands it would change") {
  const auto options = with({{"tree", "7"}, {"stream", nullptr}, {"lsm-profile", "x"}});
  CHECK(refusal(options, dump_command) == "--stream: not supported by this version yet");
  CHECK(refusal(options, restore_command) == "--lsm-profile, --stream: not supported by this version yet");
  CHECK(refusal(options, check_command).empty());
}

TEST_CASE("an external mount, in the words of today and of before") {
  const auto options = with({{"external", "mnt[/data]:key"}, {"ext-mount-map", "/with:colon:other"}});
  CHECK(options.external == std::set<std::string>{"mnt[/data]:key", "mnt[/with:colon]:other"});
  CHECK(refusal(options, restore_command).empty());
}

TEST_CASE("mounts that are to be found outside") {
  for (const auto& found : {with({{"external", "mnt[]"}}), with({{"ext-mount-map", "auto"}})}) {
    CHECK((found.auto_mounts && !found.external_sharing && !found.external_masters && found.external.empty()));
  }
  const auto masters = with({{"external", "mnt[]:ms"}});  // the first letter counts
  CHECK((masters.auto_mounts && masters.external_masters && !masters.external_sharing));
  CHECK(with({{"external", "mnt[]:s"}}).external_sharing);
  CHECK(with({{"enable-external-sharing", nullptr}, {"enable-external-masters", nullptr}}).external_sharing);
  CHECK_THROWS(with({{"external", "mnt[]:x"}}));
  CHECK_THROWS(with({{"external", "mnt[]m"}}));
  CHECK(with({{"enable-fs", "ext4,xfs"}, {"enable-fs", "fuse"}}).enable_fs ==
        std::set<std::string>{"ext4", "fuse", "xfs"});
}

TEST_CASE("switching off, or asking for what happens anyway, is fine") {
  CHECK(refusal(with({{"tree", "7"}, {"stream", nullptr}, {"no-stream", nullptr}}), dump_command).empty());
  CHECK(refusal(with({{"tree", "7"}, {"network-lock", "skip"}, {"cpu-cap", "none"}}), dump_command).empty());
}

TEST_CASE("what becomes of control groups") {
  CHECK(with({}).manage_cgroups == CgroupMode::soft);
  CHECK(with({{"manage-cgroups", "strict"}}).manage_cgroups == CgroupMode::strict);
  CHECK(with({{"manage-cgroups", "strict"}, {"manage-cgroups", nullptr}}).manage_cgroups == CgroupMode::soft);
  const auto options =
      with({{"cgroup-root", "/all"}, {"cgroup-root", "cpu,cpuacct:/some:where"}, {"cgroup-root", ":/two"}});
  CHECK(options.cgroup_root == "/all");
  CHECK(options.cgroup_roots == std::map<std::string, std::string>{{"", "/two"}, {"cpu,cpuacct", "/some:where"}});
  Options other;
  CHECK_THROWS_WITH(set_option(other, "manage-cgroups", "some"), Catch::StartsWith("Unknown cgroups mode some"));
  CHECK_THROWS_AS(set_option(other, "cgroup-root", "cpu:relative"), base::Error);
}

TEST_CASE("what sockets need") {
  CHECK(with({}).network_lock == NetworkLockMethod::any);
  CHECK(with({{"network-lock", "nftables"}}).network_lock == NetworkLockMethod::nftables);
  CHECK(with({{"network-lock", "none"}}).network_lock == NetworkLockMethod::skip);
  CHECK_THROWS(with({{"network-lock", "table"}}));
  CHECK(with({{"ext-unix-sk", nullptr}}).ext_unix_any);
  CHECK(with({{"ext-unix-sk", "12,345"}}).ext_unix_sk == std::set<std::uint32_t>{12, 345});
  CHECK_THROWS(with({{"ext-unix-sk", "12,x"}}));
  CHECK(refusal(with({{"tree", "7"}, {"external", "unix[12]"}}), dump_command).empty());
  CHECK(
      refusal(with({{"tree", "7"}, {"external", "tty[8801:1a]"}, {"external", "file[1a:2b]"}}), dump_command).empty());
  CHECK_FALSE(refusal(with({{"tree", "7"}, {"external", "pid[12]:x"}}), dump_command).empty());
  const auto given = with({{"inherit-fd", "fd[1]:pipe:[12]"}, {"inherit-fd", "fd[2]:var/log/x"}}).inherit_fds;
  CHECK(given == std::vector<std::pair<std::string, int>>{{"pipe:[12]", 1}, {"var/log/x", 2}});
  Options options;
  for (const char* wrong : {"fd[1]", "fd[1]:", "fd[x]:y", "fd[]:y", "1:y", "fd[-1]:y"}) {
    CHECK_THROWS_WITH(set_option(options, "inherit-fd", wrong),
                      Contains(std::string("Invalid inherit fd argument: ") + wrong));
  }
  CHECK_THROWS_WITH(set_option(options, "inherit-fd", "fd[12345]:x"), Contains("Can't fstat inherit fd 12345"));
}

TEST_CASE("what network namespaces need") {
  CHECK(refusal(with({{"tree", "7"}, {"external", "net[12]:x"}}), dump_command).empty());
  const auto options = with({{"veth-pair", "eth0=out0"}, {"external", "veth[eth1]:out1@br"}, {"empty-ns", "net"}});
  CHECK(options.external == std::set<std::string>{"veth[eth0]:out0", "veth[eth1]:out1@br"});
  CHECK(options.empty_net);
  CHECK(refusal(options, restore_command).empty());
  CHECK_THROWS_WITH(with({{"veth-pair", "eth0"}}), Contains("--veth-pair wants IN=OUT"));
  CHECK_THROWS_WITH(with({{"empty-ns", "mnt"}}), Contains("Unsupported empty namespace: mnt"));
  CHECK(with({{"join-ns", "net:/proc/self/ns/net"}}).join_net == "/proc/self/ns/net");
  const auto own = std::to_string(::getpid());
  CHECK(with({{"join-ns", ("net:" + own).c_str()}}).join_net == "/proc/" + own + "/ns/net");
  CHECK_THROWS_WITH(with({{"join-ns", "net:/nowhere"}}), Contains("Can't access join-ns file /nowhere"));
  CHECK_THROWS_WITH(with({{"join-ns", "pid:1"}}), Contains("join-ns pid namespace not supported"));
  CHECK_THROWS_WITH(with({{"join-ns", "nets:1"}}), Contains("invalid namespace type"));
  CHECK(refusal(with({{"join-ns", "uts:1"}}), restore_command) == "--join-ns: not supported by this version yet");
  CHECK(refusal(with({{"empty-ns", "net"}, {"join-ns", "net:/proc/self/ns/net"}}), restore_command)
            .find("Conflicting flags") == 0);
}

TEST_CASE("options that do not fit together") {
  CHECK(refusal(with({{"restore-sibling", nullptr}}), restore_command) ==
        "--restore-sibling only makes sense with --restore-detached");
  CHECK(refusal(with({{"inherit-fd", "fd[1]:x"}, {"tree", "1"}}), dump_command) ==
        "--inherit-fd is restore-only option");
  CHECK_THAT(refusal({}, dump_command), Contains("pid not specified"));
  Options options;
  CHECK_THROWS_WITH(set_option(options, "ms", nullptr),
                    Contains("--ms is deprecated; see \"Check options\" of criu --help"));
  CHECK_THROWS_WITH(set_option(options, "tls", nullptr), Equals("CRIU was built without TLS support"));
  CHECK_THROWS_AS(set_option(options, "file-validation", "md5"), UsageError);
}

TEST_CASE("names become independent of the current directory, once") {
  auto options = with({{"images-dir", "i"}, {"pidfile", "p"}, {"log-file", "l"}});
  resolve_paths(options);
  CHECK(options.images_dir.front() == '/');
  CHECK(options.images_dir.ends_with("/i"));
  CHECK(options.work_dir == options.images_dir);
  CHECK(options.pidfile == options.images_dir + "/p");
  CHECK(options.log_file == options.images_dir + "/l");
  const auto once = options;
  resolve_paths(options);
  CHECK(options.pidfile == once.pidfile);
  CHECK(options.work_dir == once.work_dir);

  options = with({{"work-dir", "/w"}, {"pidfile", "p"}, {"log-file", "-"}});
  resolve_paths(options);
  CHECK(options.pidfile == "/w/p");
  CHECK(options.log_file == "-");
}
