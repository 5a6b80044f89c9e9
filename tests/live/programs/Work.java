// SPDX-License-Identifier: GPL-2.0-only
// A JVM at work: a thread pool that computes, an allocation rate that keeps the collector busy, an open file.
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Work {
  private static Path dir;

  private static void put(String name, String text) throws IOException {
    Path made = dir.resolve(name + ".new");
    Files.writeString(made, text);
    Files.move(made, dir.resolve(name), StandardCopyOption.ATOMIC_MOVE);
  }

  private static long sumBelow(int n) {
    List<Integer> numbers = new ArrayList<>();
    for (int i = 0; i < n; i++) {
      numbers.add(i);
    }
    return numbers.stream().mapToLong(Integer::longValue).sum();
  }

  private static String step(ExecutorService pool, int number) throws Exception {
    Map<Integer, Future<Long>> sums = new HashMap<>();
    for (int i = 0; i < 8; i++) {
      int n = number % 1000 + i;
      Callable<Long> job = () -> sumBelow(n);
      sums.put(n, pool.submit(job));
    }
    for (Map.Entry<Integer, Future<Long>> sum : sums.entrySet()) {
      long n = sum.getKey();
      if (sum.getValue().get() != n * (n - 1) / 2) {
        return "BAD sum below " + n;
      }
    }
    return "ok";
  }

  public static void main(String[] arguments) throws Exception {
    dir = Path.of(arguments[0]);
    ExecutorService pool = Executors.newFixedThreadPool(4);
    Path go = dir.resolve("go");
    for (int number = 0; ; number++) {
      String found = step(pool, number);
      if (number == 100) {
        put("ready", "ready");
      }
      if (!found.equals("ok") || Files.exists(go)) {
        Files.deleteIfExists(go);
        put("report", "step " + number + " " + found + "\n");
      }
    }
  }
}
