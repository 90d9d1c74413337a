// Debian's cloud kernel with several processors, on one thread or with a thread each.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { compileStatic } from "../../guests/linux/suite.ts";
import { debianGuest } from "../../src/host/node/debian-guest.ts";
import { initramfs, runLinux, TROUBLE } from "./linux.ts";

const missing = ["apt-get", "gcc"].find((tool) => spawnSync(tool, ["--version"]).status !== 0);
const options = missing === undefined ? { timeout: 900_000 } : { skip: `needs ${missing}` };

function troubleIn(text: string): string[] {
  return text.split(/\r?\n/).filter((line) => TROUBLE.test(line));
}

/** Prints what the tests read: processors, how they are grouped, clock source, the kernel's log. */
const REPORT = `
grep -c ^processor /proc/cpuinfo
for f in /sys/devices/system/cpu/cpu[0-9]*/topology; do echo "topology $(cat $f/physical_package_id) $(cat $f/core_id) $(cat $f/thread_siblings_list)"; done
echo "nodes $(cat /sys/devices/system/node/online) $(cat /sys/devices/system/node/node*/cpulist | tr '\\n' ' ')"
echo "clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
dmesg
`;

for (const [engine, cpus, topology, nodes] of [
  ["interpret", "2 --threads one", ["0 0 0", "0 1 1"], "nodes 0 0-1 "],
  ["translate", "2", ["0 0 0", "0 1 1"], "nodes 0 0-1 "],
  ["interpret", "4,sockets=2,threads=2", ["0 0 0-1", "0 0 0-1", "1 0 2-3", "1 0 2-3"], "nodes 0-1 0-1 2-3 "],
  ["translate", "4,sockets=2,threads=2", ["0 0 0-1", "0 0 0-1", "1 0 2-3", "1 0 2-3"], "nodes 0-1 0-1 2-3 "],
] as const) {
  test(`boots with --cpus ${cpus} (${engine})`, options, async () => {
    const { stdout, stderr, status } = await runLinux({
      script: REPORT,
      args: ["--engine", engine, "--cpus", ...cpus.split(" ")],
    });
    assert.equal(status, 1, `powers off\n${stderr}${stdout.slice(-2000)}`);
    const lines = stdout.split(/\r?\n/);
    assert.ok(lines.includes(String(topology.length)), stdout.slice(0, 2000));
    const told = lines.filter((line) => line.startsWith("topology ")).map((line) => line.slice(9));
    assert.deepEqual(told, topology);
    assert.ok(lines.includes(nodes), stdout.slice(0, 2000));
    assert.ok(lines.includes("clock tsc"), "TSC is the clock source");
    assert.deepEqual(troubleIn(stdout), []);
  });
}

for (const cpus of ["1", "2", "4"]) {
  test(`two deterministic boots with ${cpus} vCPUs are the same, instruction by instruction`, options, async () => {
    const run = () =>
      runLinux({
        script: `${REPORT}\ncat /proc/interrupts /proc/uptime; head -c 16 /dev/urandom | hexdump; cat /proc/driver/rtc`,
        args: ["--cpus", cpus, "--engine", "translate", "--deterministic", "--stats"],
      });
    const [first, second] = await Promise.all([run(), run()]);
    assert.equal(first.status, 1, first.stderr);
    assert.equal(first.stdout, second.stdout);
    const counts = (text: string): string[] =>
      text.split("\n").filter((line) => /\.(instructions|apic|entries) /.test(line));
    assert.ok(counts(first.stderr).length >= 3 * Number(cpus));
    assert.deepEqual(counts(first.stderr), counts(second.stderr));
  });
}

test("another seed gives other random numbers and the same calendar", options, async () => {
  const run = async (seed: number): Promise<string[]> => {
    const script = 'head -c 16 /dev/urandom | hexdump -e \'16/1 "%02x" "\\n"\'; date -u +%Y-%m-%d';
    const { stdout } = await runLinux({ script, args: ["--engine", "translate", `--deterministic=${seed}`] });
    return stdout.split(/\r?\n/).filter((line) => /^[0-9a-f]{32}$|^\d{4}-\d\d-\d\d$/.test(line));
  };
  const [one, two] = await Promise.all([run(1), run(2)]);
  assert.equal(one.length, 2);
  assert.equal(one[1], "2026-01-01");
  assert.equal(two[1], "2026-01-01");
  assert.notEqual(one[0], two[0]);
});

for (const threads of ["one", "each"])
  test(
    `processors go offline and come back, NMIs reach all of them, and the machine reboots (threads: ${threads})`,
    options,
    async () => {
      const script = `
for round in 1 2 3; do
  for cpu in 1 2 3; do echo 0 > /sys/devices/system/cpu/cpu$cpu/online; done
  echo "online $(cat /sys/devices/system/cpu/online)"
  for cpu in 3 1 2; do echo 1 > /sys/devices/system/cpu/cpu$cpu/online; done
  echo "online $(cat /sys/devices/system/cpu/online)"
done
dmesg > /tmp/log
echo l > /proc/sysrq-trigger
sleep 1
grep NMI: /proc/interrupts
cat /tmp/log
reboot -f
`;
      const { stdout, stderr, status } = await runLinux({
        script,
        args: ["--cpus", "4", "--engine", "translate", "--threads", threads],
      });
      assert.equal(status, 0, `a guest that reboots\n${stderr}${stdout.slice(-2000)}`);
      const online = stdout.split(/\r?\n/).filter((line) => line.startsWith("online "));
      assert.deepEqual(online, ["online 0", "online 0-3", "online 0", "online 0-3", "online 0", "online 0-3"]);
      // All but the one that asks get an NMI.
      const counts = /NMI: +(\d+) +(\d+) +(\d+) +(\d+) /.exec(stdout)?.slice(1).toSorted();
      assert.deepEqual(counts, ["0", "1", "1", "1"]);
      assert.deepEqual(troubleIn(stdout.slice(stdout.indexOf("online 0"))), []);
    },
  );

test("kexec from 4 processors to 4 processors", options, async () => {
  const guest = await debianGuest({ flavour: "cloud" });
  const { program } = await compileStatic(fileURLToPath(new URL("../../guests/linux/kexec.c", import.meta.url)));
  const second = 'echo "second kernel: $(grep -c ^processor /proc/cpuinfo), $(cat /proc/cmdline)"; dmesg';
  const { stdout, stderr, status } = await runLinux({
    script: 'echo "first kernel"; /kexec /vmlinuz /initrd "console=ttyS0 panic=-1 quiet again=yes"',
    files: {
      kexec: { data: program, mode: 0o755 },
      vmlinuz: { data: await readFile(guest.kernel) },
      initrd: { data: await initramfs(guest, { script: second }) },
    },
    args: ["--cpus", "4", "--engine", "translate", "--memory", "768M"],
  });
  const tail = `${stderr}${stdout.slice(-2000)}`;
  assert.equal(status, 1, tail);
  assert.match(stdout, /first kernel[\s\S]*second kernel: 4, .*again=yes/, tail);
  assert.deepEqual(troubleIn(stdout), []);
});
