import { MemoryStore } from '../../src/io/store/memory.ts';
import { testStoreCompliance } from '../compliance/store.ts';

testStoreCompliance('MemoryStore', (_t, log) => new MemoryStore(log));
