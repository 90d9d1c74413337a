// Translated code that several vCPUs have of the same page (docs/engine.md). Before a vCPU keeps code of a page, the others must have given up
// writing there without asking: it waits for those that execute guest code; the others see it before they execute more. That code was changed
// is only posted. A vCPU that waits serves what the others ask of it meanwhile, so that two that wait for each other both go on.

import type { Engine } from "../engine.ts";
import type { CodePages } from "../vcpu.ts";
import { REQUEST, RUN_STATE } from "./control-area.ts";
import { RangeQueue } from "./range-queue.ts";
import { waitUntil } from "./spin.ts";
import type { VcpuLink } from "./vcpu-link.ts";

const PAGE_BYTES = 4096;
const MEMORY_END = 2 ** 32;

/** The part of an engine that is told. */
export type CodeUser = Pick<Engine, "protectPage" | "codeWritten" | "protectAll" | "dropCode">;

interface Target {
  readonly link: VcpuLink;
  readonly protect: RangeQueue;
  readonly written: RangeQueue;
}

function targetOf(link: VcpuLink): Target {
  return { link, protect: new RangeQueue(link, "protect"), written: new RangeQueue(link, "written") };
}

/** Tells vCPUs that memory with code in it was written to. */
export class CodeWrites {
  private readonly targets: readonly Target[];

  constructor(links: readonly VcpuLink[]) {
    this.targets = links.map(targetOf);
  }

  post(host: number, length: number): void {
    for (const { link, written } of this.targets) {
      written.add(host, Math.min(length, MEMORY_END - host));
      link.post(REQUEST.CODE);
    }
  }
}

export class SharedCode implements CodePages {
  readonly statistics = { pagesProtected: 0, codeWrites: 0 };
  private readonly own: Target;
  private readonly others: readonly Target[];
  private readonly writes: CodeWrites;
  private readonly user: () => CodeUser;

  constructor(own: VcpuLink, others: readonly VcpuLink[], user: () => CodeUser) {
    this.own = targetOf(own);
    this.others = others.map(targetOf);
    this.writes = new CodeWrites(others);
    this.user = user;
  }

  protectPage(page: number): void {
    this.statistics.pagesProtected++;
    const waiting: { readonly target: Target; readonly number: number }[] = [];
    for (const target of this.others) {
      if (target.link.state === RUN_STATE.ABSENT) continue;
      const number = target.protect.add(page, PAGE_BYTES);
      target.link.post(REQUEST.CODE);
      if (target.link.state === RUN_STATE.RUNNING) waiting.push({ target, number });
    }
    const { words } = this.own.link;
    for (const { target, number } of waiting)
      waitUntil(
        words,
        target.protect.takenWord,
        () => target.link.state !== RUN_STATE.RUNNING || target.protect.taken(number),
        () => this.takeProtected(),
      );
  }

  codeWritten(host: number, length: number): void {
    this.statistics.codeWrites++;
    this.writes.post(host, length);
  }

  /** Takes what others have told; not from within the engine. */
  take(): void {
    this.takeProtected();
    const user = this.user();
    this.own.written.take(
      (host, length) => user.codeWritten(host, length),
      () => user.dropCode(),
    );
  }

  private takeProtected(): void {
    const user = this.user();
    this.own.protect.take(
      (page) => user.protectPage(page),
      () => user.protectAll(),
    );
  }
}
