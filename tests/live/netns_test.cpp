// SPDX-License-Identifier: GPL-2.0-only
// Network namespaces of a tree's own: what the usual programs show of them is to be the same before and after.
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "sockets/net.hpp"

using namespace live;

namespace {

// In a container the tree has one already.
void own_network() {
  if (!in_container()) {
    REQUIRE(::unshare(CLONE_NEWNET) == 0);
  }
}

void run(const std::string& commands) { REQUIRE(std::system(("set -e\n" + commands).c_str()) == 0); }

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) {
    text += static_cast<char>(c);
  }
  CHECK_EQ(::pclose(pipe), 0);
  return text;
}

// Without what changes by itself: times that are left, timers, the index of an end that is outside.
constexpr const char* steady =
    " | sed -E 's/[a-z_]+(_lft|_timer) +[0-9.]+(sec)?//g; s/@if[0-9]+//; "
    "s/(bridge_id|designated_root|designated_bridge|"
    "root_id) [^ ]+//g; s/qdisc [a-z]+//; s/state [A-Z]+//; s/expires [0-9]+sec//'";

std::string links() { return output_of(std::string("ip -d link") + steady); }
std::string addresses() { return output_of(std::string("ip addr") + steady); }
std::string routes() {
  return output_of(std::string("(ip route show table all; ip -6 route show table all)") + steady + " | sort");
}
std::string rules() { return output_of("ip rule; ip -6 rule"); }
std::string neighbours() {
  return output_of("ip neigh show nud permanent; ip neigh show proxy; ip -6 neigh show proxy");
}
std::string sysctls() {
  return output_of(
      "cd /proc/sys/net && grep -rs . ipv4/conf ipv6/conf unix/max_dgram_qlen ipv4/ping_group_range | grep -v "
      "stable_secret | sort");
}

}  // namespace

LIVE_TEST("net: a namespace with the loopback device alone") {
  own_network();
  run("ip link set lo up");
  const int listener = net::bound(AF_INET6, SOCK_STREAM);
  REQUIRE(::listen(listener, 5) == 0);
  const auto before = links() + addresses() + routes() + rules() + sysctls();
  checkpoint_here();
  CHECK_EQ(links() + addresses() + routes() + rules() + sysctls(), before);
  CHECK(net::connected_to(net::port_of(listener), AF_INET6) >= 0);
}

LIVE_TEST("net: a namespace in which nothing is up", {.not_contained = true}) {
  own_network();
  const auto before = links() + addresses() + routes() + rules() + sysctls();
  checkpoint_here();
  CHECK_EQ(links() + addresses() + routes() + rules() + sysctls(), before);
}

LIVE_TEST("net: addresses and their lifetimes, routes of all tables, rules, neighbours") {
  own_network();
  run("ip link set lo up\n"
      "ip link add v0 index 40 address 02:00:00:00:00:40 type veth peer name v1 index 44\n"
      "ip link set v0 up; ip link set v1 up alias 'the other end' mtu 1400 txqueuelen 77\n"
      "ip addr add 10.9.8.7/24 broadcast + label v0:x dev v0; ip addr add 10.9.8.8/24 dev v0\n"
      "ip addr add 10.9.9.1 peer 10.9.9.2/32 dev v1\n"
      "ip addr add 10.9.10.1/24 dev v1 noprefixroute valid_lft 5000 preferred_lft 4000\n"
      "ip addr add fd00:9::7/64 dev v0 nodad; ip addr add fd00:9::8/64 dev v0 nodad preferred_lft 0 valid_lft 9000\n"
      "ip addr add 127.0.0.5/8 dev lo\n"
      "ip route add 10.77.0.0/16 via 10.9.8.1 metric 5; ip route append 10.77.0.0/16 via 10.9.8.2 metric 5\n"
      "ip route add 10.78.0.0/16 nexthop via 10.9.8.3 weight 2 nexthop via 10.9.8.4 weight 3\n"
      "ip route add blackhole 10.79.0.0/16; ip route add table 300 default via 10.9.8.1 src 10.9.8.7 mtu 1300\n"
      "ip route add local 10.80.0.0/16 dev lo; ip -6 route add fd00:77::/32 via fd00:9::1 metric 7\n"
      "ip -6 route add table 300 unreachable fd00:78::/32\n"
      "ip route del 10.9.9.2/32 dev v1\n"
      "ip rule add from 10.9.8.7 table 300 pref 100; ip -6 rule add from fd00:9::/64 fwmark 0x7 table 300 pref 200\n"
      "ip rule del pref 32767\n"
      "ip neigh add 10.9.8.99 lladdr 02:11:22:33:44:55 dev v0; ip neigh add proxy 10.9.8.98 dev v0");
  // The one that the device has made itself is looked for on the network first.
  await([] { return output_of("ip addr").find("tentative") == std::string::npos; }, "addresses are proven");
  const auto link = links(), address = addresses(), route = routes(), rule = rules(), neighbour = neighbours();
  checkpoint_here();
  CHECK_EQ(links(), link);
  CHECK_EQ(addresses(), address);
  CHECK_EQ(routes(), route);
  CHECK_EQ(rules(), rule);
  CHECK_EQ(neighbours(), neighbour);
}

LIVE_TEST("net: sysctls of the namespace and of links") {
  own_network();
  run("ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up");
  const auto set = [](const std::string& name, const std::string& value) {
    const auto path = "/proc/sys/net/" + name;
    const int fd = ::open(path.c_str(), O_WRONLY);
    // In a container they are read-only.
    if (in_container() && fd < 0) {
      return;
    }
    REQUIRE(fd >= 0 && ::write(fd, value.data(), value.size()) == static_cast<ssize_t>(value.size()));
    ::close(fd);
  };
  set("ipv4/conf/all/forwarding", "1");
  set("ipv4/conf/v0/forwarding", "0");
  set("ipv4/conf/v0/rp_filter", "2");
  set("ipv4/conf/default/accept_redirects", "0");
  set("ipv4/conf/v1/arp_ignore", "3");
  set("ipv6/conf/all/forwarding", "1");
  set("ipv6/conf/v1/forwarding", "0");
  set("ipv6/conf/v1/accept_ra", "2");
  set("ipv6/conf/v0/disable_ipv6", "1");
  set("ipv6/conf/default/hop_limit", "33");
  set("unix/max_dgram_qlen", "17");
  set("ipv4/ping_group_range", "5\t77");
  const auto before = sysctls();
  checkpoint_here();
  CHECK_EQ(sysctls(), before);
}

LIVE_TEST("net: a bridge with ports, pairs, a macvlan on one of them") {
  own_network();
  run("ip link set lo up\n"
      "ip link add br0 address 02:00:00:00:09:08 type bridge ageing_time 12300 priority 77 group_fwd_mask 0x8; ip link "
      "set br0 up\n"
      "ip link add p0 type veth peer name q0; ip link add p1 type veth peer name q1\n"
      "ip link set p0 master br0 up; ip link set q0 up; ip link set p1 up; ip link set q1 master br0\n"
      "ip link set p0 type bridge_slave cost 55 hairpin on\n"
      "ip link add m0 link p1 type macvlan mode bridge; ip link set m0 up promisc on\n"
      "ip addr add 10.9.8.1/24 dev br0; ip addr add 10.9.8.2/24 dev m0\n"
      "ip link set q1 arp off multicast off");
  await([] { return output_of("ip addr").find("tentative") == std::string::npos; }, "addresses are proven");
  // That the other end is down a worker of the kernel finds out.
  const auto settled = [] {
    return output_of("ip link show p1").find("NO-CARRIER") != std::string::npos &&
           output_of("ip link show m0").find("NO-CARRIER") != std::string::npos;
  };
  await(settled, "links without a carrier");
  const auto link = links(), address = addresses(), route = routes();
  checkpoint_here();
  await(settled, "links without a carrier again");
  CHECK_EQ(links(), link);
  CHECK_EQ(addresses(), address);
  CHECK_EQ(routes(), route);
}

LIVE_TEST("net: rules of nftables") {
  own_network();
  run("ip link set lo up\n"
      "nft -f - <<END\n"
      "table inet mine {\n"
      "  set ports { type inet_service; flags interval; elements = { 22, 80-90 } }\n"
      "  chain incoming { type filter hook input priority 5; policy drop; iif lo accept; tcp dport @ports counter "
      "accept; }\n"
      "}\n"
      "table ip6 other {\n"
      "  chain outgoing { type filter hook output priority filter; meta mark 0x5 drop; }\n"
      "}\n"
      "END");
  const auto before = output_of("nft list ruleset");
  checkpoint_here();
  CHECK_EQ(output_of("nft list ruleset"), before);
}

LIVE_TEST("net: a firewall that stops all, and a connection inside",
          {.dump = {"--tcp-established"}, .restore = {"--tcp-established"}}) {
  own_network();
  run("ip link set lo up");
  const int listener = net::bound(AF_INET, SOCK_STREAM);
  REQUIRE(::listen(listener, 5) == 0);
  const int client = net::connected_to(net::port_of(listener));
  const int server = ::accept(listener, nullptr, nullptr);
  net::put(client, "unread");
  run("nft add table inet stop\n"
      "nft add chain inet stop in '{ type filter hook input priority 0; policy drop; }'");
  checkpoint_here();
  CHECK_EQ(output_of("nft list tables"), "table inet stop\n");
  run("nft delete table inet stop");
  CHECK_EQ(net::take_all(server, 6), "unread");
  net::put(server, "back");
  CHECK_EQ(net::take_all(client, 4), "back");
}

LIVE_TEST("net: links of other kinds are named, all of them", {.dump_fails = "the network link strange of kind ifb"}) {
  own_network();
  run("ip link set lo up; ip link add strange type ifb");
  const auto before = links() + addresses();
  checkpoint_here();
  CHECK_EQ(links() + addresses(), before);
}

LIVE_TEST("net: an empty namespace on demand",
          {.dump = {"--empty-ns", "net"}, .restore = {"--empty-ns", "net"}, .not_contained = true, .not_dry = true}) {
  own_network();
  run("ip link set lo up; ip link add v0 type veth peer name v1");
  checkpoint_here();
  CHECK_EQ(output_of("ip -o link | wc -l"), "1\n");
  CHECK_EQ(output_of("ip addr").find("127.0.0.1"), std::string::npos);
}
