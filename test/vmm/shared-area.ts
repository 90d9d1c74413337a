// A control area with links to its vCPUs, and a way to have one thing happen between two atomic accesses of another.

import type { TestContext } from "node:test";
import { Worker } from "node:worker_threads";
import { MAILBOX_BYTES, MailboxBell } from "../../src/host/mailbox.ts";
import { ControlArea, type Doorbell, TURN, VCPU } from "../../src/vmm/parallel/control-area.ts";
import { ExitChannel } from "../../src/vmm/parallel/exit-channel.ts";
import type { PostedAccesses } from "../../src/vmm/parallel/posted-accesses.ts";
import { VcpuLink } from "../../src/vmm/parallel/vcpu-link.ts";
import type { Role } from "./parallel-worker.ts";

export class Shared {
  readonly area: ControlArea;
  readonly mailbox = new SharedArrayBuffer(MAILBOX_BYTES);
  readonly links: VcpuLink[];
  kicks = 0;

  constructor(vcpus = 1) {
    this.area = new ControlArea(vcpus);
    const bell = new MailboxBell(this.mailbox);
    this.links = Array.from({ length: vcpus }, (_, id) => new VcpuLink(this.area, id, () => this.kicks++, bell));
  }

  start(what: Role["what"], times: number, seed = 0): Promise<number> {
    const workerData: Role = { what, control: this.area.memory, mailbox: this.mailbox, times, seed };
    const worker = new Worker(new URL("./parallel-worker.ts", import.meta.url), { workerData });
    return new Promise((resolve, reject) => {
      worker.on("message", resolve);
      worker.on("error", reject);
    });
  }
}

export function makeChannel(
  link: VcpuLink,
  bell: Doorbell,
  posted: Partial<PostedAccesses>,
  now: () => number = () => 0,
): ExitChannel {
  return new ExitChannel(link.area, link, bell, { ranges: [], ports: [], known: [], windows: [], ...posted }, now);
}

/** What a vCPU's access gave at once, 0 for a write; "asked" where the vCPU waited. All stores into control areas are done by this until the test's end. */
export function answers(t: TestContext, link: VcpuLink): (access: () => unknown) => number | "asked" {
  let asked = 0;
  t.mock.method(Atomics, "store", (words: Int32Array, at: number, value: number) => {
    words[at] = value;
    if (words === link.words && at === link.at + VCPU.EXIT_TURN && value === TURN.DEVICES) {
      asked++;
      words[at] = TURN.VCPU;
    }
    return value;
  });
  return (access) => {
    const before = asked;
    const value = access();
    if (asked > before) return "asked";
    return typeof value === "number" ? value : 0;
  };
}

/** Does `between` before the `at`-th atomic access of `work`; false if it has fewer. */
export function interleave(t: TestContext, at: number, work: () => void, between: () => void): boolean {
  let count = 0;
  for (const name of ["load", "store", "or", "and", "exchange", "compareExchange", "add"] as const) {
    const original = Atomics[name] as (...parameters: unknown[]) => number;
    t.mock.method(Atomics, name, (...parameters: unknown[]) => {
      if (count++ === at) between();
      return original(...parameters);
    });
  }
  work();
  t.mock.restoreAll();
  return count > at;
}
