"""Money: what is allotted, waited for, called back, counted; limits, bills, and a ledger for programs."""
