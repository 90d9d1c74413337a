// Debian's cloud kernel with a thread for each processor: under stress, and while it is paused and reset from outside.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { compileStatic } from "../../guests/linux/suite.ts";
import { debianGuest } from "../../src/host/node/debian-guest.ts";
import { VirtualMachine } from "../../src/index.ts";
import { initramfs, runLinux, TROUBLE } from "./linux.ts";

const missing = ["apt-get", "gcc"].find((tool) => spawnSync(tool, ["--version"]).status !== 0);
const options = missing === undefined ? { timeout: 900_000 } : { skip: `needs ${missing}` };

const KINDS = ["forks", "threads", "pipes", "mappings", "signals", "code", "files"];

const STRESS = `
( while :; do for cpu in 1 2 3; do
  echo 0 > /sys/devices/system/cpu/cpu$cpu/online; sleep 0.2
  echo 1 > /sys/devices/system/cpu/cpu$cpu/online; sleep 0.3
done; done ) &
/smp-stress 10
echo "stress status $?"
kill $!
echo "clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
dmesg
`;

for (const engine of ["interpret", "translate"]) {
  test(`4 processors under stress, some going offline and coming back (${engine})`, options, async () => {
    const stress = fileURLToPath(new URL("../../guests/linux/smp-stress.c", import.meta.url));
    const { program } = await compileStatic(stress, ["-pthread"]);
    const { stdout, stderr, status } = await runLinux({
      script: STRESS,
      files: { "smp-stress": { data: program, mode: 0o755 } },
      args: ["--cpus", "4", "--threads", "each", "--engine", engine],
    });
    assert.equal(status, 1, `powers off\n${stderr}${stdout.slice(-2000)}`);
    const lines = stdout.split(/\r?\n/);
    for (const kind of KINDS)
      assert.ok(
        lines.some((line) => line.startsWith(`stress ${kind} ok `)),
        `${kind}\n${stdout.slice(0, 3000)}`,
      );
    assert.ok(lines.includes("stress status 0"));
    assert.ok(lines.includes("clock tsc"), "TSC is the clock source");
    assert.deepEqual(
      lines.filter((line) => TROUBLE.test(line)),
      [],
    );
  });
}

test("a boot with 4 processors that is paused again and again, and reset in the middle", options, async () => {
  const guest = await debianGuest({ flavour: "cloud" });
  const script = 'echo "processors $(grep -c ^processor /proc/cpuinfo)"; dmesg';
  await using vm = await VirtualMachine.create({
    kernel: guest.kernel,
    initrd: await initramfs(guest, { script }),
    commandLine: "console=ttyS0 panic=-1 quiet no_timer_check",
    cpus: 4,
    threads: "each",
    engine: "translate",
  });
  await vm.start();
  let ended = false;
  void vm.exited.then(() => {
    ended = true;
  });
  const poke = async (): Promise<void> => {
    for (let round = 0; !ended; round++) {
      await new Promise((resolve) => setTimeout(resolve, 20 + ((round * 37) % 100)));
      await vm.pause();
      const { vcpus } = await vm.status();
      assert.equal(vcpus.length, 4);
      await vm.registers(round % 4);
      assert.deepEqual((await vm.status()).vcpus, vcpus, "nothing moves while it is paused");
      await vm.resume();
      if (round === 12) await vm.reset();
      await vm.statistics();
    }
  };
  const poking = poke().catch((error: unknown) => {
    // The machine may end at any of these.
    if (!ended) throw error;
  });
  let console = "";
  const decoder = new TextDecoder();
  for await (const chunk of vm.serial.readable) console += decoder.decode(chunk, { stream: true });
  assert.equal((await vm.exited).reason, "power-off", console.slice(-2000));
  await poking;
  assert.match(console, /processors 4/);
  assert.deepEqual(
    console.split(/\r?\n/).filter((line) => TROUBLE.test(line)),
    [],
  );
});
