// The other thread of parallel.test.ts: does one of these roles on a control area, and says `done` with what it found.

import { parentPort, workerData } from "node:worker_threads";
import { MailboxBell } from "../../src/host/mailbox.ts";
import { ControlArea } from "../../src/vmm/parallel/control-area.ts";
import { RangeQueue } from "../../src/vmm/parallel/range-queue.ts";
import { VcpuLink } from "../../src/vmm/parallel/vcpu-link.ts";
import { makeChannel } from "./shared-area.ts";

export interface Role {
  readonly what: "sleep" | "access" | "add-ranges" | "follow-time";
  readonly control: SharedArrayBuffer;
  readonly mailbox: SharedArrayBuffer;
  readonly times: number;
  readonly seed: number;
}

const role = workerData as Role;
const area = new ControlArea(role.control);
const bell = new MailboxBell(role.mailbox);
const link = new VcpuLink(area, 0, () => {}, bell);

/** Takes what is posted until all bits came that were announced, each as often as it did; gives how often it found something. */
function sleep(): number {
  let taken = 0;
  for (let found = 0; found < role.times; ) {
    const requests = link.takeRequests();
    if (requests === 0) {
      // A wake-up that is lost is seen as a sleep to the end.
      const before = performance.now();
      link.sleep(5000, role.seed === 1);
      if (performance.now() - before > 4000) return -1;
      continue;
    }
    taken++;
    // The poster goes on when it sees its bit taken.
    found += 1;
  }
  return taken;
}

/** Port and memory accesses in turn with writes that nobody waits for; the devices give back what was written last. */
function access(): number {
  const channel = makeChannel(link, bell, {
    ranges: [{ base: 0xc000_0000, length: 0x1000, wakes: "now" }],
    ports: [{ port: 0x3f8, size: 1, wakes: "later", status: { port: 0x3fd, value: 0x60, flag: 0 } }],
    known: [{ port: 0x80, size: 1, index: 0 }],
  });
  let wrong = 0;
  for (let n = 0; n < role.times; n++) {
    const value = (n * 2654435761) >>> 0;
    channel.writePort(0x80, 4, value);
    if (channel.readPort(0x80, 4) !== value) wrong++;
    for (let m = 0; m < n % 100; m++) channel.writeMmio(0xc000_0000 + m * 4, 4, (value + m) >>> 0);
    channel.writeMmio(0x8000_0000_10 * 16, 4, value);
    if (channel.readMmio(0x8000_0000_10 * 16, 4) !== value) wrong++;
    channel.writePort(0x3f8, 1, n & 0xff);
    if (channel.readPort(0x3fd, 1) !== 0x60) wrong++;
    if (channel.readPort(0x80, 1) !== (value & 0xff)) wrong++;
    channel.endOfInterrupt(n & 0xff);
  }
  return wrong;
}

function addRanges(): number {
  const queue = new RangeQueue(link, "written");
  for (let n = 0; n < role.times; n++) queue.add(role.seed * 0x1000000 + n * 16, 16);
  return role.times;
}

/** Passes a time back and forth; gives how often it went back. */
function followTime(): number {
  const words = new Int32Array(role.mailbox);
  const times = new Float64Array(role.mailbox, 64, 1);
  let wrong = 0;
  for (let n = 0; n < role.times; n++) {
    while (Atomics.load(words, 0) !== 2 * n + 1);
    const now = performance.now();
    if (now < times[0]) wrong++;
    times[0] = performance.now();
    Atomics.store(words, 0, 2 * n + 2);
  }
  return wrong;
}

const ROLES = { sleep, access, "add-ranges": addRanges, "follow-time": followTime };
parentPort?.postMessage(ROLES[role.what]());
