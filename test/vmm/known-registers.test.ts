// What vCPUs with threads of their own know of devices without asking, and when they have to ask all the same.

import assert from "node:assert/strict";
import { test } from "node:test";
import { NEWS, VCPU } from "../../src/vmm/parallel/control-area.ts";
import { ExitReceiver } from "../../src/vmm/parallel/exit-channel.ts";
import { setKnown, setUsual } from "../../src/vmm/parallel/known-ports.ts";
import type { Selection } from "../../src/vmm/parallel/posted-accesses.ts";
import { PostedWrites, postWrite } from "../../src/vmm/parallel/posted-writes.ts";
import { registerBank, registerValue } from "../../src/vmm/parallel/register-banks.ts";
import { answers, interleave, makeChannel, Shared } from "./shared-area.ts";

const silent = { ring: () => {} };
const devices = { readPort: () => 0, writePort: () => {}, readMmio: () => 0, writeMmio: () => {} };

test("a byte that is known is read at once, as the vCPU wrote it last; not while another has posted what was not done", (t) => {
  const { area, links } = new Shared(3);
  const writes = new PostedWrites(links);
  const io = {
    ...devices,
    writePort: (port: number, _size: number, written: number) => {
      if (port === 0x3f9) setKnown(area, 2, written & 0xf);
      if (port === 0x2f9) setKnown(area, 1, written & 0xf);
    },
  };
  const channel = makeChannel(links[1], silent, {
    ports: [0x3f8, 0x3f9, 0x2f9].map((port) => ({ port, size: 1, wakes: "later" }) as const),
    known: [
      { port: 0x2f9, size: 1, index: 1, posted: 0xf },
      { port: 0x3f9, size: 1, index: 2, posted: 0xf },
    ],
  });
  const answer = answers(t, links[1]);
  const read = (port: number, size: 1 | 2) => answer(() => channel.readPort(port, size));
  assert.equal(read(0x3f9, 1), "asked");
  setKnown(area, 2, 0);
  assert.equal(read(0x3f9, 1), 0);
  assert.equal(read(0x3f9, 2), "asked");
  assert.equal(read(0x2f9, 1), "asked");
  channel.writePort(0x3f9, 1, 0xff);
  channel.writePort(0x3f8, 1, 0x41);
  assert.equal(read(0x3f9, 1), 0xf, "what it has posted itself");
  writes.take(io);
  assert.equal(read(0x3f9, 1), 0xf);
  postWrite(links[0], true, 0x3f9, 1, 3);
  assert.equal(read(0x3f9, 1), "asked");
  writes.take(io);
  assert.equal(read(0x3f9, 1), 3, "what another wrote later");
  setKnown(area, 1, 7);
  channel.writePort(0x3f9, 1, 5);
  channel.writePort(0x2f9, 1, 6);
  assert.equal(read(0x3f9, 1), "asked", "two of them are under way");
  writes.take(io);
  channel.writePort(0x3f9, 1, 4);
  setKnown(area, 2, undefined);
  assert.equal(read(0x3f9, 1), "asked", "another register is there now");
});

test("a port that no posted write changes is known whatever is under way; a write of what a latch holds is none", (t) => {
  const { area, links } = new Shared(2);
  const [link] = links;
  const channel = makeChannel(link, silent, {
    ports: [{ port: 0x3f9, size: 1, wakes: "later" }],
    known: [
      { port: 0x3f9, size: 1, index: 0, posted: 0xf },
      { port: 0x21, size: 1, index: 1, latch: true },
      { port: 0x602, size: 2, index: 15 },
    ],
  });
  const answer = answers(t, link);
  const write = (value: number, size: 1 | 2 = 1) => answer(() => channel.writePort(0x21, size, value));
  assert.equal(write(0xff), "asked", "nothing is known");
  setKnown(area, 1, 0xff);
  setKnown(area, 15, 0x0321);
  assert.equal(write(0xff), 0);
  assert.equal(write(0xfe), "asked");
  assert.equal(write(0xff, 2), "asked");
  channel.writePort(0x3f9, 1, 2);
  assert.equal(
    answer(() => channel.readPort(0x21, 1)),
    0xff,
  );
  assert.equal(
    answer(() => channel.readPort(0x602, 2)),
    0x0321,
  );
  assert.equal(
    answer(() => channel.readPort(0x602, 1)),
    "asked",
  );
  setKnown(area, 1, undefined);
  assert.equal(write(0xff), "asked");
  setKnown(area, 1, 0xff);
  postWrite(links[1], true, 0x3f9, 1, 0);
  assert.equal(write(0xff), "asked", "another vCPU's write may be one that makes it another register");
});

test("where a posted write may change what is known, that is asked for until it was done", (t) => {
  const { area, links } = new Shared();
  const [link] = links;
  const writes = new PostedWrites(links);
  const status = { port: 0x3fd, value: 0x60, flag: 2 };
  const channel = makeChannel(link, silent, {
    ports: [
      { port: 0x3f8, size: 1, wakes: "later", status },
      { port: 0x3fc, size: 1, wakes: "later", changes: true },
    ],
    known: [{ port: 0x3f9, size: 1, index: 0, posted: 0xf }],
  });
  setUsual(area, 2, true);
  setKnown(area, 0, 5);
  const answer = answers(t, link);
  const read = (port: number) => answer(() => channel.readPort(port, 1));
  channel.writePort(0x3fc, 1, 0x10);
  assert.equal(read(0x3f9), "asked");
  channel.writePort(0x3f8, 1, 0x41);
  assert.equal(read(0x3fd), "asked");
  writes.take(devices);
  assert.equal(read(0x3f9), 5);
  channel.writePort(0x3f8, 1, 0x41);
  assert.equal(read(0x3fd), 0x60);
});

const SELECTION: Selection = { at: 0xcfc, bytes: 4, register: (value, offset) => (value === 0 ? -1 : value + offset) };

test("a register that was selected is read at once where it is in a bank, unless something came between or is under way", (t) => {
  const { area, links } = new Shared(2);
  const [link, other] = links;
  const writes = new PostedWrites(links);
  const otherChannel = makeChannel(other, silent, { ranges: [{ base: 0xc000_0000, length: 0x1000, wakes: "later" }] });
  const channel = makeChannel(link, silent, {
    ranges: [
      { base: 0xc000_0000, length: 0x1000, wakes: "later" },
      { base: 0xfec0_0000, length: 4, wakes: "later", selects: { ...SELECTION, at: 0xfec0_0010 } },
      { base: 0xfec0_0010, length: 4, wakes: "later", latch: true },
    ],
    ports: [
      { port: 0xcf8, size: 4, wakes: "later", selects: SELECTION },
      { port: 0x3f8, size: 1, wakes: "later" },
    ],
  });
  const bank = registerBank(area, 3);
  bank.dwords[4] = 0x8765_4321;
  bank.dwords[5] = 0x1111_1111;
  bank.dwords[63] = 0xffff_fffe;
  for (const dword of [4, 63]) bank.answer(dword);
  const register = 3 * 256 + 16;
  const answer = answers(t, link);
  const read = (port: number, size: 1 | 2 | 4) => answer(() => channel.readPort(port, size));
  const select = (number: number): void => channel.writePort(0xcf8, 4, number);

  assert.equal(read(0xcfc, 4), "asked", "nothing selected");
  select(register);
  assert.equal(read(0xcfc, 4), 0x8765_4321);
  assert.equal(read(0xcfe, 2), 0x8765);
  assert.equal(read(0xcff, 1), 0x87);
  assert.equal(read(0xcfe, 4), "asked", "not all of it is selected");
  assert.equal(read(0xcfc, 4), "asked", "after another access");
  select(3 * 256 + 252);
  assert.equal(read(0xcfc, 4), 0xffff_fffe);
  for (const number of [register + 4, 4 * 256, 0]) {
    select(number);
    assert.equal(read(0xcfc, 2), "asked", `register ${number}`);
  }
  select(register);
  channel.writePort(0x3f8, 1, 0);
  assert.equal(read(0xcfc, 4), "asked", "after another posted write");
  select(register);
  channel.forget();
  assert.equal(read(0xcfc, 4), "asked", "after a reset");
  select(register);
  assert.equal(read(0xcf8, 4), "asked");

  writes.take(devices);
  channel.writeMmio(0xc000_0000, 4, 1);
  select(register);
  assert.equal(read(0xcfc, 4), "asked", "a write under way may change it");
  channel.writeMmio(0xc000_0000, 4, 1);
  select(register);
  writes.take(devices);
  assert.equal(read(0xcfc, 4), 0x8765_4321, "it was done");

  select(register);
  postWrite(other, false, 0xc000_0000, 4, 1);
  assert.equal(read(0xcfc, 4), "asked", "another vCPU's, which may select too");
  select(register);
  assert.equal(read(0xcfc, 4), "asked", "or change it");
  writes.take(devices);
  select(register);
  answers(t, other)(() => otherChannel.writePort(0xcf8, 4, 0));
  assert.equal(
    answers(t, link)(() => channel.readPort(0xcfc, 4)),
    "asked",
    "another vCPU's that it waited for",
  );
});

test("a register is asked for while the end of an interrupt is under way, which may change it", (t) => {
  const { area, links } = new Shared();
  const [link] = links;
  const receiver = new ExitReceiver(link);
  const channel = makeChannel(link, silent, { windows: [{ at: 0xfed0_0000, bytes: 512, register: 2 * 256 }] });
  registerBank(area, 2).answer(0);
  registerBank(area, 3).answer(1);
  registerBank(area, 3).dwords[1] = 7;
  const answer = answers(t, link);
  const read = (gpa: number) => answer(() => channel.readMmio(gpa, 4));
  assert.equal(read(0xfed0_0104), 7, "in the bank behind the first");
  assert.equal(read(0xfed0_0004), "asked");
  assert.equal(read(0xfed0_0204), "asked");
  channel.endOfInterrupt(0x41);
  assert.equal(read(0xfed0_0000), "asked");
  let during: number | "asked" | undefined;
  const server = {
    io: devices,
    acknowledge: () => 0,
    endOfInterrupt: () => {
      during = read(0xfed0_0000);
    },
    watchedServed: () => {},
    retry: () => {},
  };
  receiver.takeNews(server);
  assert.equal(during, "asked", "it has been taken, and not been done");
  assert.equal(read(0xfed0_0000), 0);
  assert.equal(link.load(VCPU.NEWS) & NEWS.TAKEN, 0);
});

test("a write of what the register of a latch holds is none, where that is certain", (t) => {
  const { area, links } = new Shared();
  const [link] = links;
  const writes = new PostedWrites(links);
  const selects: Selection = {
    at: 0xfec0_0010,
    bytes: 4,
    register: (value, _offset, size) => (size === 4 ? value : -1),
  };
  const channel = makeChannel(link, silent, {
    ranges: [
      { base: 0xfec0_0000, length: 4, wakes: "later", selects },
      { base: 0xfec0_0010, length: 4, wakes: "later", latch: true },
    ],
  });
  const bank = registerBank(area, 0);
  bank.dwords[8] = 0x1_0000;
  bank.answer(8);
  const posted = (what: () => void): number => {
    const before = link.load(VCPU.WRITES_POSTED);
    what();
    return link.load(VCPU.WRITES_POSTED) - before;
  };
  const write = (value: number, size: 1 | 4 = 4) => posted(() => channel.writeMmio(0xfec0_0010, size, value));
  channel.writeMmio(0xfec0_0000, 4, 32);
  assert.equal(write(0x1_0000), 0);
  assert.equal(
    answers(t, link)(() => channel.readMmio(0xfec0_0010, 4)),
    0x1_0000,
  );
  assert.equal(write(0, 1), 1);
  assert.equal(write(0x1_0000), 1, "that write may have changed it");
  writes.take(devices);
  channel.writeMmio(0xfec0_0000, 4, 36);
  assert.equal(write(0), 1, "a register that is to be asked for");
});

test("a bank whose answers end with a time is asked for from then on, and while it changes", (t) => {
  const { area } = new Shared();
  const bank = registerBank(area, 1);
  let now = 99;
  const value = () => registerValue(area, 256, 4, () => now);
  bank.answer(0);
  bank.dwords[0] = 1;
  assert.equal(value(), 1, "for good, where nothing else is said");
  bank.holdUntil(100);
  assert.equal(value(), 1);
  now = 100;
  assert.equal(value(), undefined);
  const change = (): void => {
    bank.holdUntil(0);
    Atomics.store(bank.dwords, 0, 2);
    bank.holdUntil(200);
  };
  const seen: (number | undefined)[] = [];
  for (let at = 0; ; at++) {
    bank.dwords[0] = 1;
    bank.holdUntil(150);
    let read: number | undefined;
    const changed = interleave(
      t,
      at,
      () => {
        read = value();
      },
      change,
    );
    if (!changed) break;
    seen.push(read);
  }
  assert.deepEqual(seen, [2, 2, undefined, undefined], "what is read goes with the time that is read");
  change();
  bank.holdUntil(Number.POSITIVE_INFINITY);
  now = Number.MAX_SAFE_INTEGER;
  assert.equal(value(), 2);
});
