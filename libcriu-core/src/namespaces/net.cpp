// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/net.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>

#include "files/external.hpp"
#include "kernel/mounts.hpp"
#include "log.hpp"
#include "namespaces/net_firewall.hpp"
#include "namespaces/net_sysctls.hpp"
#include "namespaces/net_tables.hpp"
#include "outside.hpp"
#include "sockets/iptables.hpp"
#include "sockets/network_lock.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

base::Fd current_net() {
  return base::Fd(check(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), "open", "the own network namespace"));
}

// "net:[4026531840]" as it is written in --external.
std::string key_of(const std::string& link) {
  const auto at = link.find('[');
  return "net" + (at == link.npos ? "[]" : link.substr(at));
}

// Whether a task outside of the tree is in it, or somebody has given it a name (ip netns).
bool is_used(const std::string& link) {
  std::error_code ignored;
  for (const auto& process : std::filesystem::directory_iterator("/proc", ignored)) {
    const auto name = process.path().filename().string();
    if (std::isdigit(static_cast<unsigned char>(name.front())) != 0) {
      std::error_code gone;
      if (std::filesystem::read_symlink(process.path() / "ns/net", gone) == link) {
        return true;
      }
    }
  }
  const auto mounts = kernel::parse_mountinfo(procfs::Task(::getpid()).read("mountinfo"));
  return std::any_of(mounts.begin(), mounts.end(), [&](const auto& mount) { return mount.root == link; });
}

}  // namespace

InsideNet::InsideNet(int ns) {
  if (ns >= 0) {
    before_ = current_net();
    check(::setns(ns, CLONE_NEWNET), "enter", "the network namespace of the tree");
  }
}

InsideNet::~InsideNet() {
  if (before_ && ::setns(before_.get(), CLONE_NEWNET) != 0) {
    LOG_ERROR("cannot leave the network namespace of the tree: {}", std::strerror(errno));
  }
}

void save_net(DumpContext& dump, const Home& home) {
  if (home.network() < 0) {
    return;
  }
  const auto id = dump.net_ns_id;
  images::netns_entry entry;
  if (const auto label = files::external_value(dump.options, key_of(home.theirs().at("net")))) {
    entry.set_ext_key(*label);
    dump.images.put(image::type::netns, id, entry);
    return;
  }
  if (dump.options.empty_net) {
    return;
  }
  kernel::Netlink netlink(NETLINK_ROUTE);
  dump.attempt([&] { save_links(dump, netlink, id); });
  dump.attempt([&] { save_tables(dump, netlink, id, entry); });
  dump.attempt([&] { read_net_sysctls(entry, *dump.users); });
  dump.images.put(image::type::netns, id, entry);
  if (!dump.look_only) {
    dump.attempt([&] {
      save_firewall(dump.images, id, unpacked(outside::ask({outside::Errand::Kind::read_firewall, 0})));
    });
  }
}

void bury_net(const Home& home) {
  if (home.network() < 0 || is_used(home.theirs().at("net"))) {
    return;
  }
  const InsideNet inside(home.network());
  kernel::Netlink netlink(NETLINK_ROUTE);
  remove_crossing_links(netlink);
}

RestoredNet::RestoredNet(const RestoreContext& context, std::uint32_t ns_id)
    : context_(context),
      ns_id_(ns_id),
      outer_(context.internal(current_net())),
      outside_(context.internal(kernel::Netlink::socket(NETLINK_ROUTE))) {
  if (!context.options.join_net.empty()) {
    const auto& path = context.options.join_net;
    joined_ = context.internal(base::Fd(check(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open", path)));
    given_ = joined_.get();
    return;
  }
  if (context.options.empty_net) {
    return;
  }
  auto image = context.images.open(image::type::netns, ns_id);
  if (!image) {
    throw Error("cannot restore", fmt::format("the network namespace {}: the checkpoint does not have it", ns_id), 0,
                "--empty-ns net makes an empty one, --join-ns net:FILE takes one that exists");
  }
  image->only(entry_);
  if (entry_.has_ext_key()) {
    given_ = context.objects.inherited.find(entry_.ext_key());
    if (given_ < 0) {
      throw Error("cannot restore", fmt::format("the network namespace {}, which was outside", entry_.ext_key()), 0,
                  fmt::format("--inherit-fd fd[N]:{} says which one it is here", entry_.ext_key()));
    }
    return;
  }
  links_.emplace(context, ns_id, outside_, outer_.get());
}

RestoredNet::~RestoredNet() {
  if (links_) {
    try {
      links_->undo();
    } catch (const Error& error) {
      LOG_ERROR("{}", error.what());
    }
  }
}

void RestoredNet::make() {
  if (!links_) {
    return;
  }
  inner_ = context_.internal(current_net());
  inside_.emplace(context_.internal(kernel::Netlink::socket(NETLINK_ROUTE)));
  write_net_sysctls(entry_, *context_.users, context_.options.weak_sysctls);
  links_->make(*inside_, inner_.get());
  restore_tables(context_, *inside_, ns_id_, entry_);
  links_->settle();
}

void RestoredNet::connect() {
  if (links_) {
    links_->connect();
  }
}

void RestoredNet::arm() {
  if (!links_) {
    return;
  }
  const auto rules = saved_firewall(context_.images, ns_id_);
  write_firewall(rules);
  // CRIU locks the whole namespace, and its lock comes back with the rules.
  const auto has = [&](const std::string& text) { return rules.nftables.find(text) != std::string::npos; };
  const auto name =
      sockets::lock_name(context_.checkpoint.inventory.dump_criu_run_id(), context_.checkpoint.root().pid());
  if (has("table inet " + name + " {")) {
    sockets::remove_lock(NetworkLockMethod::nftables, name, {}, 0);
  }
  for (const bool v6 : {false, true}) {
    const auto table = rules.nftables.find(v6 ? "table ip6 filter {" : "table ip filter {");
    const auto end = rules.nftables.find("\n}", table);
    if (table != std::string::npos &&
        rules.nftables.substr(table, end - table).find("chain CRIU {") != std::string::npos) {
      sockets::iptables::remove_namespace_lock(v6);
    }
  }
}

}  // namespace criu::namespaces
