// What guest code asks of the host while a region is checked: the region's run is answered and noted, the interpreter's gets the same answers.
// What has an effect is done once, when both have agreed.

import type { EngineHost } from "../../vmm/engine.ts";

/** `asked` is the call with its arguments. */
interface Entry {
  readonly asked: string;
  readonly answer: unknown;
}

export class CheckHost {
  /** What the host is told during a region that cannot be run again: effects came before an answer. */
  unrepeatable = false;
  /** The first call of the interpreter that the region did not make. */
  difference: string | undefined;
  private mode: "direct" | "note" | "replay" = "direct";
  private readonly log: Entry[] = [];
  private readonly effects: (() => void)[] = [];
  private replayed = 0;

  /** The host as the engine sees it. */
  wrap(host: EngineHost): EngineHost {
    const { requested } = host;
    return {
      portIn: (port, bytes) =>
        this.ask(
          () => `IN ${port} ${bytes}`,
          () => host.portIn(port, bytes),
          0,
        ),
      portOut: (port, bytes, value) =>
        this.tell(`OUT ${port} ${bytes} ${value}`, () => host.portOut(port, bytes, value)),
      mmioRead: (low, high, bytes) =>
        this.ask(
          () => `read ${high}:${low} ${bytes}`,
          () => host.mmioRead(low, high, bytes),
          0,
        ),
      mmioWrite: (low, high, bytes, value) =>
        this.tell(`write ${high}:${low} ${bytes} ${value}`, () => host.mmioWrite(low, high, bytes, value)),
      readMsr: (msr) =>
        this.ask(
          () => `RDMSR ${msr}`,
          () => host.readMsr(msr),
          undefined,
        ),
      writeMsr: (msr, low, high) => {
        if (this.mode === "note") this.unrepeatable = true;
        return this.ask(
          () => `WRMSR ${msr} ${high}:${low}`,
          () => host.writeMsr(msr, low, high),
          false,
        );
      },
      tscNow: () =>
        this.ask(
          () => "TSC",
          () => host.tscNow(),
          0,
        ),
      readCr8: () =>
        this.ask(
          () => "CR8",
          () => host.readCr8(),
          0,
        ),
      writeCr8: (value) => this.tell(`CR8 ${value}`, () => host.writeCr8(value)),
      random32: () =>
        this.ask(
          () => "random",
          () => host.random32(),
          0,
        ),
      protectPage: (page) => host.protectPage(page),
      codeWritten: (at, length) => host.codeWritten(at, length),
      ...(requested === undefined ? {} : { requested: () => requested.call(host) }),
      anomaly: (what, argument) => this.tell(`anomaly ${what} ${argument}`, () => host.anomaly(what, argument)),
    };
  }

  private ask<T>(asked: () => string, answer: () => T, otherwise: T): T {
    if (this.mode === "direct") return answer();
    if (this.mode === "replay") {
      const entry = this.next(asked());
      return entry === undefined ? otherwise : (entry.answer as T);
    }
    if (this.effects.length > 0) {
      this.unrepeatable = true;
      this.takeEffect();
    }
    const value = answer();
    this.log.push({ asked: asked(), answer: value });
    return value;
  }

  private tell(told: string, effect: () => void): void {
    if (this.mode === "direct") effect();
    else if (this.mode === "replay") this.next(told);
    else {
      this.effects.push(effect);
      this.log.push({ asked: told, answer: undefined });
    }
  }

  private next(asked: string): Entry | undefined {
    const entry = this.log[this.replayed++];
    if (entry?.asked === asked) return entry;
    this.difference ??= `the interpreter did ${asked}, the region ${entry?.asked ?? "nothing"}`;
    return undefined;
  }

  note(): void {
    this.mode = "note";
    this.unrepeatable = false;
    this.log.length = 0;
  }

  replay(): void {
    this.mode = "replay";
    this.replayed = 0;
    this.difference = undefined;
  }

  /** Back to normal, and a call of the region's that the interpreter did not make. */
  direct(): string | undefined {
    const missed = this.mode === "replay" ? this.log[this.replayed] : undefined;
    this.mode = "direct";
    return (
      this.difference ?? (missed === undefined ? undefined : `the region did ${missed.asked}, the interpreter not`)
    );
  }

  /** What was put off. */
  takeEffect(): void {
    const { mode } = this;
    this.mode = "direct";
    for (const effect of this.effects.splice(0)) effect();
    this.mode = mode;
  }
}
