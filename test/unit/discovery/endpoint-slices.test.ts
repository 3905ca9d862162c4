import { describe, expect, test } from 'vitest';
import { membersOf, type EndpointSlice } from '../../../src/discovery/endpoint-slices.ts';
import { familyOf, selfCheck, type Family } from '../../../src/discovery/own-address.ts';

const ports = [
  { name: 'metrics', port: 7491 },
  { name: 'peers', port: 7000 },
];

function merge(slices: EndpointSlice[], family: Family = 'IPv4') {
  return membersOf(slices, { family, defaultPort: 7490 });
}

describe('membersOf', () => {
  test('membersOf takes every endpoint, whatever its readiness, with zone and port', () => {
    const endpoints = [
      { addresses: ['10.0.0.2'], nodeName: 'b', zone: 'z', conditions: { ready: false } },
      { addresses: ['10.0.0.1'], nodeName: 'a', conditions: { ready: true } },
    ];
    expect(merge([{ ports, endpoints }])).toEqual([
      { name: 'a', address: '10.0.0.1:7000' },
      { name: 'b', address: '10.0.0.2:7000', zone: 'z' },
    ]);
  });

  test('membersOf joins slices and makes one member of a node that several name', () => {
    const of = (nodeName: string, address: string, ready = true): EndpointSlice => ({
      ports,
      endpoints: [{ addresses: [address], nodeName, conditions: { ready } }],
    });
    const slices = [
      of('a', '10.0.0.3', false),
      of('a', '10.0.0.9'),
      of('a', '10.0.0.7'),
      of('b', '10.0.0.4'),
      of('b', '10.0.0.4'),
    ];
    const expected = [
      { name: 'a', address: '10.0.0.7:7000' },
      { name: 'b', address: '10.0.0.4:7000' },
    ];
    expect(merge(slices)).toEqual(expected);
    expect(merge(slices.reverse())).toEqual(expected);
  });

  test('membersOf prefers the own family, ready or not, and takes the other where it must', () => {
    const six = (nodeName: string, address: string, ready = true): EndpointSlice => ({
      addressType: 'IPv6',
      ports,
      endpoints: [{ addresses: [address], nodeName, conditions: { ready } }],
    });
    const four: EndpointSlice = {
      addressType: 'IPv4',
      ports,
      endpoints: [{ addresses: ['10.0.0.1'], nodeName: 'a', conditions: { ready: false } }],
    };
    const slices = [six('a', 'fd00::1'), four, six('b', 'fd00::2')];
    const addresses = (family: Family) => merge(slices, family).map(({ address }) => address);
    expect(addresses('IPv4')).toEqual(['10.0.0.1:7000', '[fd00::2]:7000']);
    expect(addresses('IPv6')).toEqual(['[fd00::1]:7000', '[fd00::2]:7000']);
  });

  test('membersOf finds a port and a name where slices leave them out', () => {
    const endpoints = [{ addresses: ['10.0.0.1'], targetRef: { name: 'salvor-x' } }];
    expect(merge([{ endpoints, ports: [{ name: '', port: 1 }] }])).toEqual([
      { name: 'salvor-x', address: '10.0.0.1:1' },
    ]);
    expect(merge([{ endpoints: [{ addresses: ['10.0.0.1'] }], ports: null }])).toEqual([
      { name: '10.0.0.1:7490', address: '10.0.0.1:7490' },
    ]);
  });

  test('membersOf leaves out what is no address', () => {
    const endpoints = [{ addresses: ['a.example.com'] }, { addresses: [] }, {}];
    expect(merge([{ endpoints }, { endpoints: null }, {}])).toEqual([]);
  });
});

describe('selfCheck', () => {
  const isSelf = selfCheck(
    { name: 'me', listen: '0.0.0.0:7490' },
    () => new Set(['10.0.0.1', 'fd00::1']),
  );

  test('selfCheck recognises this node by name, or by address and port', () => {
    expect(isSelf({ name: 'me', address: '10.9.9.9:1' })).toBe(true);
    expect(isSelf({ name: 'other', address: '10.0.0.1:7490' })).toBe(true);
    expect(isSelf({ name: 'other', address: '[fd00::1]:7490' })).toBe(true);
    expect(isSelf({ name: 'other', address: '10.0.0.1:7491' })).toBe(false);
    expect(isSelf({ name: 'other', address: '10.0.0.2:7490' })).toBe(false);
  });

  test('familyOf is that of the address on which the agent listens', () => {
    expect(['0.0.0.0:1', '[::]:1', 'host:1'].map(familyOf)).toEqual(['IPv4', 'IPv6', 'IPv4']);
  });
});
