package member_test

import (
	"testing"

	"github.com/pgbaton/pgbaton/member/membertest"
)

func TestMain(m *testing.M) { membertest.Main(m, nil) }
