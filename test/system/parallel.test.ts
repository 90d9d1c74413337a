// Debian's cloud kernel with a thread for each processor: under stress, and while it is paused and reset from outside.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { debianGuest } from "../../src/host/node/debian-guest.ts";
import { VirtualMachine } from "../../src/index.ts";
import { REPORT, troubleOf } from "../soak/guest-run.ts";
import { interruptedBoot } from "../soak/points.ts";
import { stressFiles, stressScript, stressTrouble } from "../soak/stress.ts";
import { initramfs, runLinux, TROUBLE } from "./linux.ts";

const missing = ["apt-get", "gcc"].find((tool) => spawnSync(tool, ["--version"]).status !== 0);
const options = missing === undefined ? { timeout: 900_000 } : { skip: `needs ${missing}` };

for (const engine of ["interpret", "translate"]) {
  test(`4 processors under stress, some going offline and coming back (${engine})`, options, async () => {
    const { stdout, stderr, status } = await runLinux({
      script: `${stressScript(10, 4)}${REPORT}`,
      files: await stressFiles(),
      args: ["--cpus", "4", "--threads", "each", "--engine", engine],
    });
    assert.equal(status, 1, `powers off\n${stderr}${stdout.slice(-2000)}`);
    assert.deepEqual([...stressTrouble(stdout), ...troubleOf(stdout, 4)], [], stdout.slice(0, 3000));
  });
}

test("a boot with 4 processors that is paused again and again, and reset in the middle", options, async () => {
  const guest = await debianGuest({ flavour: "cloud" });
  const script = 'echo "processors $(grep -c ^processor /proc/cpuinfo)"; dmesg';
  await using vm = await VirtualMachine.create({
    kernel: guest.kernel,
    initrd: await initramfs(guest, { script }),
    commandLine: "console=ttyS0 panic=-1 quiet",
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

test("a boot with 4 processors that goes on in new machines, from snapshots at random points", options, async () => {
  const { wrong, state, console, counts } = await interruptedBoot({ seed: 2, points: 8, cpus: 4, limitSeconds: 800 });
  assert.deepEqual(wrong, [], `${state ?? ""}${console.slice(-3000)}`);
  assert.ok(counts.save >= 2, JSON.stringify(counts));
});
