// SPDX-License-Identifier: GPL-2.0-only
// System V shared memory, semaphores and message queues: in the IPC namespace of the host, of which a tree takes along
// what it has attached, and in one of the tree's own.
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "harness/live.hpp"

using namespace live;

namespace {

constexpr std::size_t page = 4096;

union SemArgument {
  int value;
  semid_ds* set;
  unsigned short* values;
};

char* attach(int id, int flags = 0, void* at = nullptr) {
  void* got = ::shmat(id, at, flags);
  REQUIRE(got != reinterpret_cast<void*>(-1));
  return static_cast<char*>(got);
}

shmid_ds state_of_segment(int id) {
  shmid_ds state{};
  if (::shmctl(id, IPC_STAT, &state) != 0) {
    state.shm_segsz = 0;
  }
  return state;
}

// A segment that goes with this process, whatever becomes of the test: by its removal in the body, or here.
class Segment {
 public:
  explicit Segment(std::size_t size, key_t key = IPC_PRIVATE, int flags = 0600)
      : id_(::shmget(key, size, IPC_CREAT | IPC_EXCL | flags)) {
    REQUIRE(id_ >= 0);
  }
  ~Segment() { ::shmctl(id_, IPC_RMID, nullptr); }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  int id() const { return id_; }

 private:
  int id_;
};

// A container is in one.
void own_namespace() { REQUIRE(in_container() || ::unshare(CLONE_NEWIPC) == 0); }

void set_sysctl(const char* name, const std::string& value) {
  std::ofstream(std::string("/proc/sys/") + name) << value << "\n";
  REQUIRE(read_text(std::string("/proc/sys/") + name).starts_with(value));
}

void shared_between_tasks() {
  const Segment segment(3 * page + 100);
  auto* memory = attach(segment.id());
  std::strcpy(memory + page, "before");
  memory[3 * page + 99] = 'z';
  Child child([&] {
    checkpoint_here();
    CHECK(std::strcmp(memory + page, "from the parent") == 0);
    std::strcpy(memory, "from the child");
    CHECK_EQ(::shmdt(memory), 0);
  });
  checkpoint_here();
  CHECK(std::strcmp(memory + page, "before") == 0);
  CHECK_EQ(memory[3 * page + 99], 'z');
  CHECK_EQ(memory[2 * page], '\0');
  const auto state = state_of_segment(segment.id());
  CHECK_EQ(state.shm_segsz, 3 * page + 100);
  CHECK_EQ(state.shm_nattch, 2U);
  CHECK_EQ(state.shm_perm.mode, 0600U);
  std::strcpy(memory + page, "from the parent");
  CHECK_EQ(child.finish(), 0);
  CHECK(std::strcmp(memory, "from the child") == 0);
  CHECK_EQ(state_of_segment(segment.id()).shm_nattch, 1U);
}

void several_attachments() {
  const Segment segment(8 * page);
  auto* whole = attach(segment.id());
  const auto* looking = attach(segment.id(), SHM_RDONLY);
  auto* cut = attach(segment.id());
  for (std::size_t i = 0; i < 8; ++i) {
    whole[i * page] = static_cast<char>('a' + i);
  }
  REQUIRE(::munmap(cut, 2 * page) == 0);                      // its begin,
  REQUIRE(::munmap(cut + 4 * page, page) == 0);               // a hole,
  REQUIRE(::mprotect(cut + 6 * page, page, PROT_READ) == 0);  // and a part that is not like the rest
  REQUIRE(::mprotect(whole + page, page, PROT_NONE) == 0);
  checkpoint_here();
  CHECK_EQ(looking[5 * page], 'f');
  CHECK_EQ(cut[3 * page], 'd');
  CHECK_EQ(cut[6 * page], 'g');
  whole[7 * page] = 'W';
  CHECK_EQ(cut[7 * page], 'W');
  CHECK_EQ(looking[7 * page], 'W');
  // What came with one call goes with one call.
  const auto before = state_of_segment(segment.id()).shm_nattch;
  CHECK_EQ(::shmdt(whole), 0);
  CHECK_EQ(::shmdt(looking), 0);
  CHECK_EQ(state_of_segment(segment.id()).shm_nattch, before - 4);
  CHECK_EQ(::mprotect(cut + 6 * page, page, PROT_READ | PROT_WRITE), 0);
  cut[6 * page] = 'G';
}

void removed_while_attached() {
  const int id = ::shmget(IPC_PRIVATE, 2 * page, 0640 | IPC_CREAT);
  REQUIRE(id >= 0);
  auto* memory = attach(id);
  std::strcpy(memory, "still there");
  REQUIRE(::shmctl(id, IPC_RMID, nullptr) == 0);
  checkpoint_here();
  CHECK(std::strcmp(memory, "still there") == 0);
  const auto state = state_of_segment(id);
  CHECK_EQ(state.shm_perm.mode & 01000U, 01000U);  // SHM_DEST
  auto* again = attach(id);                        // Linux allows it by the id
  CHECK(std::strcmp(again, "still there") == 0);
  CHECK_EQ(::shmdt(again), 0);
  CHECK_EQ(::shmdt(memory), 0);
  CHECK_EQ(state_of_segment(id).shm_segsz, 0U);  // gone
}

}  // namespace

LIVE_TEST("ipc: a segment shared between tasks") { shared_between_tasks(); }

LIVE_TEST("ipc: a segment shared between tasks, in an own namespace") {
  own_namespace();
  shared_between_tasks();
}

LIVE_TEST("ipc: several attachments of a segment, parts, and one read-only") { several_attachments(); }

LIVE_TEST("ipc: several attachments, in an own namespace") {
  own_namespace();
  several_attachments();
}

LIVE_TEST("ipc: a segment that was removed while attached") { removed_while_attached(); }

LIVE_TEST("ipc: a segment that was removed while attached, in an own namespace") {
  own_namespace();
  removed_while_attached();
}

LIVE_TEST("ipc: a small segment with a key, as an interlock between servers") {
  const key_t key = 0x43520000 + ::getpid() % 0x10000;
  const Segment segment(56, key);
  auto* memory = attach(segment.id());
  const int pid = ::getpid();
  std::memcpy(memory, &pid, sizeof pid);
  Child idle([] { checkpoint_here(); });
  checkpoint_here();
  CHECK_EQ(::shmget(key, 56, 0), segment.id());
  CHECK_EQ(::shmget(key, 56, IPC_CREAT | IPC_EXCL | 0600), -1);
  CHECK_EQ(state_of_segment(segment.id()).shm_nattch, 2U);
  CHECK(std::memcmp(memory, &pid, sizeof pid) == 0);
  CHECK_EQ(idle.finish(), 0);
}

LIVE_TEST("ipc: a segment of another owner and creator, locked in memory") {
  own_namespace();
  const Segment segment(page);
  auto* memory = attach(segment.id());
  memory[0] = 'x';
  int given = -1;
  {
    REQUIRE(::setegid(1001) == 0 && ::seteuid(1000) == 0);
    given = ::shmget(0x77, page, IPC_CREAT | 0604);
    REQUIRE(::seteuid(0) == 0 && ::setegid(0) == 0);
  }
  REQUIRE(given >= 0);
  auto state = state_of_segment(given);
  REQUIRE(state.shm_perm.cuid == 1000 && state.shm_perm.cgid == 1001);
  state.shm_perm.uid = 2000;
  REQUIRE(::shmctl(given, IPC_SET, &state) == 0);
  REQUIRE(::shmctl(given, SHM_LOCK, nullptr) == 0);
  checkpoint_here();
  state = state_of_segment(given);
  CHECK_EQ(state.shm_perm.cuid, 1000U);
  CHECK_EQ(state.shm_perm.cgid, 1001U);
  CHECK_EQ(state.shm_perm.uid, 2000U);
  CHECK_EQ(state.shm_perm.gid, 1001U);
  CHECK_EQ(state.shm_perm.mode, 0604U | 02000U);  // SHM_LOCKED
  CHECK_EQ(state.shm_nattch, 0U);
  CHECK_EQ(::shmget(0x77, 0, 0), given);
  CHECK_EQ(memory[0], 'x');
}

LIVE_TEST("ipc: a segment of huge pages") {
  own_namespace();
  constexpr std::size_t size = 4 << 20;
  const int id = ::shmget(IPC_PRIVATE, size, IPC_CREAT | SHM_HUGETLB | 0600);
  if (id < 0) {
    skip("no huge pages");
  }
  auto* memory = attach(id);
  memory[size - 1] = 'h';
  checkpoint_here();
  CHECK_EQ(memory[size - 1], 'h');
  CHECK_EQ(memory[0], '\0');
  memory[0] = '1';
}

LIVE_TEST("ipc: a segment that others outside of the tree use is theirs",
          Options{.not_contained = true, .outside = [] {
                    const int id = ::shmget(0x43521111, page, IPC_CREAT | 0600);
                    REQUIRE(id >= 0);
                    auto* memory = attach(id);
                    outside_ready();
                    // Goes on counting while the tree is away, until the test says so, or the harness ends it.
                    while (memory[1] == 0) {
                      __atomic_add_fetch(reinterpret_cast<unsigned char*>(memory), 1, __ATOMIC_RELAXED);
                      ::usleep(1000);
                    }
                    ::shmctl(id, IPC_RMID, nullptr);
                  }}) {
  const int id = ::shmget(0x43521111, page, 0);
  REQUIRE(id >= 0);
  auto* memory = attach(id);
  checkpoint_here();
  const auto now = __atomic_load_n(memory, __ATOMIC_RELAXED);
  await([&] { return __atomic_load_n(memory, __ATOMIC_RELAXED) != now; }, "somebody else counts");
  CHECK_EQ(state_of_segment(id).shm_nattch, 2U);
  memory[1] = 1;
}

LIVE_TEST("ipc: message queues with what waits in them, in an own namespace", {.not_contained = true}) {
  own_namespace();
  struct Message {
    long type;
    char text[64];
  };
  set_sysctl("kernel/msgmnb", "70000");
  const int large = ::msgget(0x99, IPC_CREAT | 0620);
  set_sysctl("kernel/msgmnb", "20000");
  const int queue = ::msgget(IPC_PRIVATE, IPC_CREAT | 0600);
  REQUIRE(queue >= 0 && large >= 0);
  Message message{3, "first"};
  REQUIRE(::msgsnd(queue, &message, 6, 0) == 0);
  message = {7, "second"};
  REQUIRE(::msgsnd(queue, &message, 7, 0) == 0);
  message = {3, ""};
  REQUIRE(::msgsnd(queue, &message, 0, 0) == 0);
  checkpoint_here();
  CHECK_EQ(::msgrcv(queue, &message, sizeof message.text, 7, IPC_NOWAIT), 7);
  CHECK(std::strcmp(message.text, "second") == 0);
  CHECK_EQ(::msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT), 6);
  CHECK_EQ(message.type, 3);
  CHECK_EQ(::msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT), 0);
  CHECK_EQ(::msgrcv(queue, &message, sizeof message.text, 0, IPC_NOWAIT), -1);
  msqid_ds state{};
  CHECK_EQ(::msgget(0x99, 0), large);
  CHECK_EQ(::msgctl(large, IPC_STAT, &state), 0);
  CHECK_EQ(state.msg_qbytes, 70000U);
  CHECK_EQ(state.msg_perm.mode, 0620U);
  CHECK(read_text("/proc/sys/kernel/msgmnb").starts_with("20000"));
}

// In a container they are read-only.
LIVE_TEST("ipc: semaphore sets and the limits of a namespace of the tree's own", {.not_contained = true}) {
  own_namespace();
  set_sysctl("kernel/shmmni", "1000");
  set_sysctl("kernel/sem", "100\t2000\t20\t200");
  set_sysctl("fs/mqueue/msg_max", "20");
  const int gone = ::semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);  // so that the ids of the others are not what is next
  const int set = ::semget(0x55, 3, IPC_CREAT | 0606);
  REQUIRE(set >= 0 && ::semctl(gone, 0, IPC_RMID) == 0);
  const int second = ::semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
  unsigned short values[3] = {4, 0, 32767};
  REQUIRE(::semctl(set, 0, SETALL, SemArgument{.values = values}) == 0);
  checkpoint_here();
  CHECK_EQ(::semget(0x55, 3, 0), set);
  unsigned short now[3] = {};
  CHECK_EQ(::semctl(set, 0, GETALL, SemArgument{.values = now}), 0);
  CHECK(std::memcmp(values, now, sizeof now) == 0);
  CHECK_EQ(::semctl(second, 0, GETVAL), 0);
  semid_ds state{};
  CHECK_EQ(::semctl(set, 0, IPC_STAT, SemArgument{.set = &state}), 0);
  CHECK_EQ(state.sem_perm.mode, 0606U);
  CHECK(read_text("/proc/sys/kernel/shmmni").starts_with("1000\n"));
  CHECK(read_text("/proc/sys/kernel/sem").starts_with("100\t2000\t20\t200"));
  CHECK(read_text("/proc/sys/fs/mqueue/msg_max").starts_with("20\n"));
  CHECK(read_text("/proc/sys/kernel/sem_next_id").starts_with("-1"));
}

namespace {

// What is left of a semaphore once `holder` is gone.
int value_after(int set, int number, Child& holder) {
  CHECK_EQ(holder.finish(), 0);
  return ::semctl(set, number, GETVAL);
}

}  // namespace

LIVE_TEST("ipc: what the end of a task gives back to semaphores") {
  own_namespace();
  const int set = ::semget(IPC_PRIVATE, 100, IPC_CREAT | 0600);
  REQUIRE(set >= 0);
  unsigned short values[100] = {5, 0, 32767, 16000, 3};
  REQUIRE(::semctl(set, 0, SETALL, SemArgument{.values = values}) == 0);
  Child holder([&] {
    sembuf take[] = {{0, -3, SEM_UNDO}, {1, 7, SEM_UNDO}, {2, -32767, SEM_UNDO}, {3, -1, 0}, {99, 1, SEM_UNDO}};
    REQUIRE(::semop(set, take, 5) == 0);
    checkpoint_here();
  });
  Child other([&] {
    sembuf take[] = {{0, -1, SEM_UNDO}, {4, -2, SEM_UNDO}};
    REQUIRE(::semop(set, take, 2) == 0);
    checkpoint_here();
  });
  checkpoint_here();
  CHECK_EQ(::semctl(set, 0, GETVAL), 1);
  CHECK_EQ(::semctl(set, 1, GETVAL), 7);
  CHECK_EQ(::semctl(set, 2, GETVAL), 0);
  CHECK_EQ(value_after(set, 0, holder), 4);
  CHECK_EQ(::semctl(set, 1, GETVAL), 0);
  CHECK_EQ(::semctl(set, 2, GETVAL), 32767);
  CHECK_EQ(::semctl(set, 3, GETVAL), 15999);
  CHECK_EQ(::semctl(set, 99, GETVAL), 0);
  CHECK_EQ(::semctl(set, 4, GETVAL), 1);
  CHECK_EQ(value_after(set, 4, other), 3);
  CHECK_EQ(::semctl(set, 0, GETVAL), 5);
}

LIVE_TEST("ipc: threads next to semaphores of others are not in the way") {
  const int set = ::semget(IPC_PRIVATE, 40, IPC_CREAT | 0600);
  REQUIRE(set >= 0);
  sigset_t usr2;
  ::sigemptyset(&usr2);
  ::sigaddset(&usr2, SIGUSR2);
  ::sigprocmask(SIG_BLOCK, &usr2, nullptr);
  std::atomic<pid_t> tid = 0;
  std::thread idle([&] {
    tid = ::gettid();
    int signo = 0;
    ::sigwait(&usr2, &signo);
  });
  await([&] { return tid != 0; }, "the thread runs");
  await_syscall(tid, SYS_rt_sigtimedwait);
  checkpoint_here();
  CHECK_EQ(::semctl(set, 39, GETVAL), 0);
  CHECK_EQ(::semctl(set, 0, IPC_RMID), 0);
  ::kill(::getpid(), SIGUSR2);
  idle.join();
}

LIVE_TEST("ipc: a lock on a semaphore of the host is in the way",
          Options{.not_contained = true, .dump_fails = "SEM_UNDO"}) {
  const int set = ::semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
  REQUIRE(set >= 0 && ::semctl(set, 0, SETVAL, SemArgument{.value = 1}) == 0);
  sembuf take{0, -1, SEM_UNDO};
  REQUIRE(::semop(set, &take, 1) == 0);
  checkpoint_here();
  CHECK_EQ(::semctl(set, 0, GETVAL), 0);
  CHECK_EQ(::semctl(set, 0, IPC_RMID), 0);
}

namespace {

constexpr std::size_t made_size = 5 * page;

// What the test told: the id of its segment.
int told_segment(const std::string& images) {
  std::ifstream file(images + "/../segment");
  int id = -1;
  file >> id;
  return id;
}

void tell_segment(int id) { std::ofstream(scratch("segment")) << id << "\n"; }

// Another segment, with this id, which goes with this process.
void take_id(int id) {
  std::ofstream("/proc/sys/kernel/shm_next_id") << id << "\n";
  const int taken = ::shmget(IPC_PRIVATE, 2 * made_size, 0600);
  attach(taken);
  ::shmctl(taken, IPC_RMID, nullptr);
}

void fill_and_wait() {
  const int id = ::shmget(IPC_PRIVATE, made_size, 0600);
  REQUIRE(id >= 0);
  tell_segment(id);
  auto* memory = attach(id);
  memory[page] = 'm';
  checkpoint_here();
  CHECK_EQ(memory[page], 'm');
  CHECK_EQ(memory[2 * page], '\0');
  CHECK_EQ(state_of_segment(id).shm_nattch, 1U);
  CHECK_EQ(::shmctl(id, IPC_RMID, nullptr), 0);
}

}  // namespace

LIVE_TEST("ipc: a segment that is gone is made again, with its id",
          Options{.not_contained = true,
                  .tamper = [](const std::string& images) { ::shmctl(told_segment(images), IPC_RMID, nullptr); }}) {
  fill_and_wait();
}

LIVE_TEST("ipc: a segment that was changed after the dump is as it was again",
          Options{.not_contained = true, .tamper = [](const std::string& images) {
                    auto* memory = attach(told_segment(images));
                    memory[page] = 'M';
                    memory[2 * page] = 'M';
                    ::shmdt(memory);
                  }}) {
  fill_and_wait();
}

LIVE_TEST("ipc: a segment whose id is another's by now", Options{.not_contained = true,
                                                                 .restore_fails = "another segment has its id",
                                                                 .tamper = [](const std::string& images) {
                                                                   const int id = told_segment(images);
                                                                   ::shmctl(id, IPC_RMID, nullptr);
                                                                   take_id(id);
                                                                 }}) {
  fill_and_wait();
}

LIVE_TEST("ipc: a segment whose place in the table is another's by now",
          Options{.not_contained = true, .restore_fails = "its id is taken", .tamper = [](const std::string& images) {
                    const int id = told_segment(images);
                    ::shmctl(id, IPC_RMID, nullptr);
                    take_id(id ^ 1 << 15);  // the number of times that the place was used lies above
                  }}) {
  fill_and_wait();
}

LIVE_TEST("ipc: a segment that others use by now and have changed",
          Options{.not_contained = true,
                  .restore_fails = "it has changed since the dump",
                  .tamper = [](const std::string& images) {
                    auto* memory = attach(told_segment(images));
                    memory[0] = 'o';
                    ::shmctl(told_segment(images), IPC_RMID, nullptr);
                  }}) {
  fill_and_wait();
}

LIVE_TEST("ipc: a POSIX message queue is refused by name", Options{.dump_fails = "is a POSIX message queue"}) {
  const auto name = "/criu-live-" + std::to_string(::getpid());
  const mqd_t queue = ::mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, nullptr);
  REQUIRE(queue >= 0);
  REQUIRE(::mq_unlink(name.c_str()) == 0);
  REQUIRE(::mq_send(queue, "text", 4, 3) == 0);
  checkpoint_here();
  mq_attr attributes{};
  CHECK_EQ(::mq_getattr(queue, &attributes), 0);
  CHECK_EQ(attributes.mq_curmsgs, 1);
}

LIVE_TEST("ipc: a POSIX message queue that nobody has open, in an own namespace",
          Options{.dump_fails = "the POSIX message queue /kept"}) {
  own_namespace();
  const mqd_t queue = ::mq_open("/kept", O_RDWR | O_CREAT | O_EXCL, 0600, nullptr);
  REQUIRE(queue >= 0 && ::mq_close(queue) == 0);
  checkpoint_here();
  CHECK_EQ(::mq_unlink("/kept"), 0);
}
