/* cc_fault.c — whether a table contradicts itself: for tests, and for builds that check. */
#include "cc_table.h"

const char *cc_table_fault(const cc_table *table)
{
    const cc_policy *policy = &table->policy;
    uint64_t bytes = 0, expiring = 0;
    if (!cc_policy_valid(policy))
        return "the policy's queues and states disagree";
    if (table->index.entries != policy->live)
        return "index and policy count differently";
    for (uint32_t slot = 0; slot < policy->used; slot++) {
        const cc_record *record = &policy->records[slot];
        if (!cc_record_live(record))
            continue;
        if (!cc_index_has(&table->index, record->meta.hash, slot))
            return "an entry is not in the index";
        if (cc_record_key(record) == NULL || cc_record_value(record) == NULL)
            return "an entry has no key or no value";
        bytes += table->sized ? policy->loads[slot].size : 0;
        expiring += record->meta.expiry != 0;
    }
    if (bytes != cc_table_bytes(table) || bytes > table->max_bytes)
        return "bytes are miscounted";
    if (expiring != table->expiring)
        return "expiring entries are miscounted";
    if (policy->live > policy->limit)
        return "more entries than the bound";
    return NULL;
}
