// Package health says how a member is: [Of] asks its server, Patroni, every pooler and the state directory at the same time, and judges
// what would disturb the next handover. What does not answer is part of the status, and no error.
package health
