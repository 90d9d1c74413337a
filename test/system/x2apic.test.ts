// Debian's cloud kernel with processors whose APIC ids eight bits cannot name: x2APIC mode from the start, processors 256 and 299 brought online
// (the others never get a thread), interrupts of the I/O APIC and MSIs led to them by extended destination ids (KVM_FEATURE_MSI_EXT_DEST_ID).

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { runLinux, TROUBLE } from "./linux.ts";

const missing = ["apt-get", "gcc"].find((tool) => spawnSync(tool, ["--version"]).status !== 0);
const options = missing === undefined ? { timeout: 900_000 } : { skip: `needs ${missing}` };

const SCRIPT = `
for c in 256 299; do echo 1 > /sys/devices/system/cpu/cpu$c/online; done
echo "online $(cat /sys/devices/system/cpu/online)"
for c in 256 299; do
  taskset -c $c sh -c 'echo "runs on $(cut -d " " -f 39 /proc/self/stat)"'
  echo "apicid $(grep -A30 "^processor.*: $c\\$" /proc/cpuinfo | grep -m1 "^apicid" | tr -dc 0-9)"
done
serial=$(grep -m1 ttyS0 /proc/interrupts | cut -d: -f1 | tr -dc 0-9)
random=$(grep -m1 virtio0-input /proc/interrupts | cut -d: -f1 | tr -dc 0-9)
for irq in $serial $random; do echo 299 > /proc/irq/$irq/smp_affinity_list; done
for n in 1 2 3 4 5 6 7 8; do dd if=/dev/hwrng of=/dev/null bs=64 count=4 2>/dev/null; echo "bytes $n"; done
taskset -c 256 sh -c 'for n in 1 2 3; do cat /proc/uptime > /dev/null; sleep 0.1; done'
dmesg -c > /tmp/log
echo l > /proc/sysrq-trigger
sleep 0.2
dmesg -c > /dev/null
cat /proc/interrupts
for c in 299 256; do echo 0 > /sys/devices/system/cpu/cpu$c/online; done
echo "online $(cat /sys/devices/system/cpu/online)"
for c in 256 299; do echo 1 > /sys/devices/system/cpu/cpu$c/online; done
echo "online $(cat /sys/devices/system/cpu/online)"
cat /tmp/log
dmesg
`;

test(
  "processors with APIC ids 256 and 299 run processes, take IPIs, NMIs, pins and MSIs, and come back",
  options,
  async () => {
    const { stdout, stderr, status } = await runLinux({
      script: SCRIPT,
      modules: ["virtio_pci", "virtio_rng"],
      append: "maxcpus=2",
      args: ["--cpus", "300", "--engine", "translate", "--memory", "1G", "--stats"],
    });
    assert.equal(status, 1, `powers off\n${stderr.slice(0, 2000)}${stdout.slice(-2000)}`);
    const lines = stdout.split(/\r?\n/);
    const told = lines.filter((line) => /^(online|runs on|apicid) /.test(line));
    const all = "online 0-1,256,299";
    assert.deepEqual(told, [all, "runs on 256", "apicid 256", "runs on 299", "apicid 299", "online 0-1", all]);
    /** Counts of a line of /proc/interrupts: processors 0, 1, 256, 299. */
    const counts = (what: RegExp): number[] => {
      const line = lines.find((candidate) => /^ *\w+: /.test(candidate) && what.test(candidate)) ?? "";
      return line.trim().split(/ +/).slice(1, 5).map(Number);
    };
    assert.ok(counts(/ttyS0/)[3] > 0, "the I/O APIC reaches 299");
    assert.ok(counts(/virtio0-input/)[3] > 0, "MSIs reach 299");
    for (const kind of [/^ *LOC:/, /^ *RES:/, /^ *CAL:/])
      assert.ok(
        counts(kind)
          .slice(2)
          .every((count) => count > 0),
        `${kind} on 256 and 299`,
      );
    // All but the one that asks get an NMI.
    assert.deepEqual(counts(/^ *NMI:/).toSorted(), [0, 1, 1, 1]);
    const log = stdout.slice(stdout.lastIndexOf(all));
    assert.match(log, /x2apic: enabled by BIOS/);
    assert.deepEqual(
      log.split(/\r?\n/).filter((line) => TROUBLE.test(line)),
      [],
    );
    /** A counter of `--stats`. */
    const counter = (name: string): string | undefined =>
      stderr
        .split("\n")
        .find((line) => line.startsWith(`${name} `))
        ?.slice(name.length + 1);
    assert.equal(counter("vcpus[299].interrupts.startups"), "2");
    assert.equal(counter("vcpus[298].instructions"), "0", "298 never got a thread");
  },
);
