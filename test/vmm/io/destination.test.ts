// Destinations: SDM Vol. 3A 11.6.2 and 11.12.10. The map made beforehand against a walk over all APICs.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  type ApicIdentity,
  ApicMode,
  DestinationMap,
  matches,
  x2apicLogicalId,
} from "../../../src/vmm/io/destination.ts";
import { BROADCAST_8, BROADCAST_32, BROADCAST_XAPIC } from "../../../src/vmm/io/interrupt-message.ts";
import { ApicMachine } from "./apic-machine.ts";

const xapic = (id: number, logicalId = 0, dfr = 0xffffffff): ApicIdentity => ({
  id,
  mode: ApicMode.XAPIC,
  ldr: (logicalId << 24) >>> 0,
  dfr,
});
const x2apic = (id: number): ApicIdentity => ({ id, mode: ApicMode.X2APIC, ldr: x2apicLogicalId(id), dfr: 0xffffffff });

describe("destinations", () => {
  test("physical", () => {
    assert.equal(matches(xapic(5), 5, false, BROADCAST_8), true);
    assert.equal(matches(xapic(5), 4, false, BROADCAST_8), false);
    assert.equal(matches(x2apic(0x105), 5, false, BROADCAST_8), false);
    assert.equal(matches(x2apic(0x105), 0x105, false, BROADCAST_32), true);
    assert.equal(matches(xapic(5), 0x105, false, BROADCAST_32), false);
  });

  test("broadcast in both modes, in the width of the sender", () => {
    for (const logical of [false, true]) {
      assert.equal(matches(xapic(5), 0xff, logical, BROADCAST_8), true);
      assert.equal(matches(x2apic(0x305), 0xff, logical, BROADCAST_8), true);
      assert.equal(matches(x2apic(5), 0xffffffff, logical, BROADCAST_32), true);
      assert.equal(matches(xapic(5), 0xffffffff, logical, BROADCAST_32), true);
      assert.equal(matches(x2apic(0x305), 0xff, logical, BROADCAST_32), false);
    }
  });

  test("a device with 15 bits of destination: FFH is everyone in xAPIC mode, and an id in x2APIC mode", () => {
    for (const logical of [false, true]) assert.equal(matches(xapic(5), 0xff, logical, BROADCAST_XAPIC), true);
    assert.equal(matches(x2apic(5), 0xff, false, BROADCAST_XAPIC), false);
    assert.equal(matches(x2apic(0xff), 0xff, false, BROADCAST_XAPIC), true);
    assert.equal(matches(x2apic(0x1ff), 0x1ff, false, BROADCAST_XAPIC), true);
    assert.equal(matches(xapic(0xff), 0x1ff, false, BROADCAST_XAPIC), false);
  });

  test("logical flat: any common bit of eight", () => {
    assert.equal(matches(xapic(0, 0x04), 0x0c, true, BROADCAST_8), true);
    assert.equal(matches(xapic(0, 0x04), 0x0b, true, BROADCAST_8), false);
    assert.equal(matches(xapic(0, 0), 0x7f, true, BROADCAST_8), false);
  });

  test("logical cluster: the same cluster, any common bit of four", () => {
    const apic = xapic(0, 0x32, 0x0fffffff);
    assert.equal(matches(apic, 0x36, true, BROADCAST_8), true);
    assert.equal(matches(apic, 0x3d, true, BROADCAST_8), false);
    assert.equal(matches(apic, 0x26, true, BROADCAST_8), false);
    assert.equal(matches(xapic(0, 0x32, 0x7fffffff), 0x36, true, BROADCAST_8), false);
  });

  test("x2APIC cluster: 16 bits of cluster, 16 members (11.12.10.1)", () => {
    assert.equal(x2apicLogicalId(0), 1);
    assert.equal(x2apicLogicalId(0xfffff), 0xffff8000);
    assert.equal(matches(x2apic(0x25), 0x20020, true, BROADCAST_32), true);
    assert.equal(matches(x2apic(0x25), 0x2ffff, true, BROADCAST_32), true);
    assert.equal(matches(x2apic(0x25), 0x2ffdf, true, BROADCAST_32), false);
    assert.equal(matches(x2apic(0x25), 0x3ffff, true, BROADCAST_32), false);
    // From an I/O APIC eight bits can only name members 0 to 7 of cluster 0.
    assert.equal(matches(x2apic(3), 0x08, true, BROADCAST_8), true);
    assert.equal(matches(x2apic(0x13), 0x08, true, BROADCAST_8), false);
  });

  test("the map says what a walk says, over mixed populations", () => {
    let seed = 99;
    const random = (limit: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * limit);
    };
    for (let round = 0; round < 300; round++) {
      const count = 1 + random(20);
      const apics: ApicIdentity[] = [];
      for (let i = 0; i < count; i++) {
        const id = random(4) === 0 ? random(0x400) : i;
        const kind = random(8);
        if (kind === 0) apics.push({ id, mode: ApicMode.DISABLED, ldr: 0xff000000, dfr: 0xffffffff });
        else if (kind < 3) apics.push(x2apic(id));
        else {
          const dfr = [0xffffffff, 0x0fffffff, 0x0fffffff, 0x3fffffff][random(4)];
          apics.push(xapic(id, random(2) ? random(256) : 1 << random(8), dfr));
        }
      }
      const map = new DestinationMap(apics);
      assert.deepEqual(
        map.all(),
        apics.filter((apic) => apic.mode !== ApicMode.DISABLED),
      );
      for (let i = 0; i < 60; i++) {
        const wide = random(3) === 0;
        const broadcast = wide ? BROADCAST_32 : [BROADCAST_8, BROADCAST_XAPIC][random(2)];
        const destination = wide
          ? [random(0x400), ((random(64) << 16) | random(0x10000)) >>> 0, 0xffffffff][random(3)]
          : [random(256), 0xff, random(0x400)][broadcast === BROADCAST_XAPIC ? random(3) : random(2)];
        const logical = random(2) === 1;
        const walk = apics.filter((apic) => matches(apic, destination, logical, broadcast));
        assert.deepEqual(map.find(destination, logical, broadcast), walk, `destination ${destination.toString(16)}`);
      }
    }
  });

  test("the router's map follows LDR, DFR, mode and restored state", () => {
    const m = new ApicMachine({ ids: [0, 1, 2] }).enable();
    let seed = 7;
    const random = (limit: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return Math.floor((seed / 2 ** 32) * limit);
    };
    for (let i = 0; i < 2000; i++) {
      const position = random(3);
      const apic = m.apics[position];
      switch (random(6)) {
        case 0:
          m.write(0xd0, random(256) << 24, position);
          break;
        case 1:
          m.write(0xe0, random(2) ? 0xffffffff : 0, position);
          break;
        case 2:
          apic.writeBase([0xfee00000n, 0xfee00800n, 0xfee00c00n][random(3)]);
          break;
        case 3:
          apic.init();
          break;
        default: {
          const destination = random(256);
          const logical = random(2) === 1;
          const walk = m.apics.filter((candidate) => matches(candidate, destination, logical, BROADCAST_8));
          assert.deepEqual(
            m.router.targets(destination, logical, BROADCAST_8).map((target) => target.id),
            walk.map((target) => target.id),
          );
        }
      }
    }
  });
});
