// What this board's vCPUs do not wait for, where they have threads of their own. The I/O APIC: 82093AA data sheet (290566), 3.1 and 3.2.4.

import assert from "node:assert/strict";
import { test } from "node:test";
import { postedAccesses } from "../../src/machine/wiring.ts";
import { VCPU } from "../../src/vmm/parallel/control-area.ts";
import { ExitChannel } from "../../src/vmm/parallel/exit-channel.ts";
import { Shared } from "../vmm/shared-area.ts";

test("an I/O APIC's entries are written without waiting, and the devices' thread is woken for those that let interrupts through", () => {
  const { area, links } = new Shared();
  const [link] = links;
  let rings = 0;
  const channel = new ExitChannel(area, link, { ring: () => void rings++ }, postedAccesses({ trace: [], without: [] }));
  const write = (index: number, value: number): number => {
    const before = rings;
    channel.writeMmio(0xfec0_0000, 4, index);
    channel.writeMmio(0xfec0_0010, 4, value);
    return rings - before;
  };
  assert.equal(write(0x12, 0x1_0000), 0, "masked");
  assert.equal(write(0x13, 0), 0, "its destination, processor 0");
  assert.equal(write(0x12, 0x0030), 1, "let through");
  assert.equal(write(0x13, 0x0100_0000), 1, "a destination: of what waits it may be the first that accepts");
  assert.equal(link.load(VCPU.WRITES_POSTED), 8);
  assert.equal(channel.statistics.exits, 0);
});
