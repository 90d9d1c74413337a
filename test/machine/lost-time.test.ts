// Virtual time of a machine that was paused, or whose host slept: it stands still, or is set forward (TRAPS 11).

import assert from "node:assert/strict";
import { test } from "node:test";
import { engineModule } from "../../src/cpu/standard-module.ts";
import { type Host, webHost } from "../../src/host/host.ts";
import { MailboxReceiver, MailboxSender } from "../../src/host/mailbox.ts";
import { machineConfig } from "../../src/machine/config.ts";
import { LostTime } from "../../src/machine/lost-time.ts";
import { CHANNEL, type Command, MESSAGE } from "../../src/machine/protocol.ts";
import { MachineRunner } from "../../src/machine/runner.ts";
import { multibootKernel, POWER_OFF } from "../api/guest.ts";

const HOUR_MS = 3_600_000;
const HOUR_TICKS_HIGH = 500;
/** mov dx, 3f8h; and DL and DH as they were before, by way of EBX. */
const SEND_EDX = [0x89, 0xd3, 0x66, 0xba, 0xf8, 0x03, 0x88, 0xd8, 0xee, 0x88, 0xf8, 0xee];
const RDTSC = [0x0f, 0x31];
/** RDTSC, and again while EDX is less than 500. */
const AWAIT_AN_HOUR = [...RDTSC, 0x81, 0xfa, HOUR_TICKS_HIGH & 0xff, HOUR_TICKS_HIGH >> 8, 0, 0, 0x72, 0xf6];

/** The high half of the TSC that the guest saw, with these commands before it executes anything. */
function run(clock: string, code: readonly number[], commands: readonly Command[], wallClock: () => number): number {
  const mailbox = new MailboxSender();
  const host: Host = { ...webHost, engineModule: engineModule(), wallClock };
  const output: number[] = [];
  const runner = new MachineRunner({
    config: machineConfig({ clock, engine: "interpret", memory: "16M" }),
    disks: [],
    host,
    mailbox: new MailboxReceiver(mailbox.memory),
    mailboxMemory: mailbox.memory,
    kernel: () => ({ bytes: multibootKernel([...code, ...SEND_EDX, ...POWER_OFF]), name: "tsc", commandLine: "" }),
    post: (message) => {
      if (message.type === "output" && message.channel === CHANNEL.SERIAL) output.push(...message.bytes);
    },
  });
  commands.forEach((command, id) => {
    assert.ok(mailbox.trySend(MESSAGE.COMMAND, new TextEncoder().encode(JSON.stringify({ command, id }))));
  });
  runner.run();
  assert.equal(output.length, 2);
  return output[0] | (output[1] << 8);
}

test("a pause of an hour is no time for the guest, or is caught up with", () => {
  for (const [clock, least, most] of [
    ["freeze", 0, 10],
    ["catch-up", HOUR_TICKS_HIGH, 0xffff],
  ] as const) {
    // An hour later each time that somebody looks.
    let hours = 0;
    const seen = run(clock, RDTSC, ["start", "pause", "resume"], () => hours++ * HOUR_MS);
    assert.ok(seen >= least && seen <= most, `${clock}: ${seen}`);
  }
});

test("sleep of the host, when its monotonic clock stands still, is caught up with", { timeout: 120_000 }, () => {
  let looks = 0;
  // Awake for a while, then asleep for an hour.
  const wallClock = () => performance.now() + (++looks > 10 ? HOUR_MS : 0);
  assert.ok(run("catch-up", AWAIT_AN_HOUR, ["start"], wallClock) >= HOUR_TICKS_HIGH);
});

test("a wall clock that is set by a little, or back, is no sleep", () => {
  let now = 5e9;
  let wallClock = 1e12;
  const lost = new LostTime({ now: () => now, wallClock: () => wallClock });
  const pass = (monotonicMs: number, wallMs: number): number => {
    now += monotonicMs * 1e6;
    wallClock += wallMs;
    return lost.slept();
  };
  assert.equal(lost.due, false);
  now += 1e9;
  assert.equal(lost.due, true);
  assert.equal(pass(0, 1000), 0);
  assert.equal(pass(1000, 1500), 0);
  assert.equal(pass(1000, -HOUR_MS), 0);
  assert.equal(pass(1000, 61_000), 60e9);
  assert.equal(pass(1000, 1000), 0);
  wallClock += 90_000;
  assert.equal(lost.paused(), 90e9);
  wallClock -= HOUR_MS;
  assert.equal(lost.paused(), 0);
});
